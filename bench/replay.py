"""Try replay on a million histories that nobody thought of.

    python bench/replay.py --n 1000000 --seed 1    every invariant of the guide, on random JSON and random changes

A history is named by the seed and its number, so that one that fails can be made again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from random import Random
from typing import Any

import jsonpatch
import orjson
import pandas as pd
from arguments import whole
from review_stores import letter

from ocr_sprint.core.canonical import Json, canonical, sha256_hex
from ocr_sprint.review.fieldpath import FieldPath, format_path, get_value, parse_path, set_value
from ocr_sprint.review.lines import Sample, rebuild
from ocr_sprint.review.replay import (
    Drift,
    Event,
    apply_event,
    inverse,
    lower,
    prove,
    replay,
    reverse,
    same,
    states,
    to_json_patch,
)

KEYS = ("header", "personel", "nama", "nrp", "perihal", "pangkat", "a.b", "", "x[0]", '"', "\\", "é", "e\u0301", "0")
SCALARS: tuple[Json, ...] = (
    None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, 1e300, 2**64 - 1, -(2**63), "", "1", "true", "77060000", "BUDI",
    "é", "e\u0301", "😀", "\u0085", "\u2028", "Penyelidikan kasus pencurian",
)  # fmt: skip
BLOCK = 5_000


def value(random: Random, depth: int) -> Json:
    """A random JSON value."""
    kind = random.random()
    if depth == 0 or kind < 0.6:
        return random.choice(SCALARS) if kind < 0.5 else random.randrange(10**6)
    if kind < 0.8:
        return [value(random, depth - 1) for _ in range(random.randrange(4))]
    return {key: value(random, depth - 1) for key in random.sample(KEYS, random.randrange(4))}


def copied(thing: Json) -> Json:
    """An equal value that shares nothing."""
    made: Json = orjson.loads(orjson.dumps(thing))
    return made


def places(root: Json) -> list[tuple[FieldPath, Any, Any]]:
    """The path of every value inside a value, its container and its key or index there."""
    found: list[tuple[FieldPath, Any, Any]] = []
    left: list[tuple[FieldPath, Json]] = [((), root)]
    while left:
        prefix, container = left.pop()
        inner = container.items() if isinstance(container, dict) else enumerate(container)  # type: ignore[arg-type]
        for token, part in inner:
            found.append(((*prefix, token), container, token))
            if isinstance(part, dict | list):
                left.append(((*prefix, token), part))
    return found


def change(random: Random, model: Json, n: int) -> Event:
    """Change a model where it stands, without any function under test, and tell it as an event."""
    path, container, token = random.choice(places(model))
    here, new, kind = container[token], value(random, 2), random.random()
    if kind < 0.3 and isinstance(here, list):
        at = random.randint(0, len(here))
        here.insert(at, copied(new))
        return Event(n, "add", format_path((*path, at)), None, new)
    if kind < 0.3 and isinstance(here, dict) and (free := [key for key in KEYS if key not in here]):
        key = random.choice(free)
        here[key] = copied(new)
        return Event(n, "add", format_path((*path, key)), None, new)
    if kind < 0.5 and len(path) > 1:
        del container[token]
        return Event(n, "remove", format_path(path), here, None)
    container[token] = copied(new)
    return Event(n, "set", format_path(path), copied(here), new)


@dataclass(frozen=True)
class History:
    """A first output, the changes of an independent model, and where they led it."""

    initial: Json
    events: list[Event]
    final: Json


def history(random: Random) -> History:
    """A random history of up to eight events."""
    model: Json = {key: value(random, 3) for key in random.sample(KEYS, random.randint(1, 4))}
    initial, first = copied(model), random.choice((1, 1, 1, 7))
    return History(initial, [change(random, model, n) for n in range(first, first + random.randrange(9))], model)


def tampered(random: Random, final: Json) -> Json:
    """The final result with one value, row or key that nobody corrected to be so."""
    other = copied(final)
    _, container, token = random.choice(places(other))
    kind = random.random()
    if kind < 0.2 and isinstance(container, list):
        container.insert(token, value(random, 1))
    elif kind < 0.4 and len(container) > 1:
        del container[token]
    else:
        while same(container[token], new := value(random, 1)):
            pass
        container[token] = new
    return other


def exported(made: History, final: Json, events: list[Event]) -> bytes | None:
    """What the export, which has a shorter way for plain corrections, says the first output was; None for a drift."""
    hashes = sha256_hex(canonical(made.initial)), sha256_hex(orjson.dumps(made.initial))
    sample = Sample(1, "", "", "pdf", True, None, None, "", orjson.dumps(final).decode(), "[]", None, *hashes)
    initial = rebuild(sample, events).initial
    return None if initial is None else canonical(orjson.loads(orjson.dumps(initial)))


def check(made: History, random: Random) -> Iterator[tuple[str, bool]]:
    """Each invariant of the guide, and whether it holds for a history."""
    initial, events, final = made.initial, made.events, made.final
    first, last, digest = canonical(initial), canonical(final), sha256_hex(canonical(initial))
    written = [canonical(list(event)) for event in events]
    shuffled = random.sample(events, len(events))
    forward, past = [initial], states(final, shuffled)
    for event in events:
        forward.append(apply_event(forward[-1], event))  # type: ignore[arg-type]
    yield "I2", not isinstance(past, Drift) and canonical(past[0]) == first
    if isinstance(past, Drift):
        return
    yield "I1", same(replay(initial, shuffled), final)  # type: ignore[arg-type]
    yield "I3", same(replay(past[0], events), final)  # type: ignore[arg-type]
    yield "I4", len(past) == len(forward) and all(map(same, past, forward))
    yield "I6", states(final, events) == past
    lowered = lower(events, past)
    yield "I10", all(event.op == "set" for event in lowered) and same(reverse(final, lowered), initial)  # type: ignore[arg-type]
    yield "I8", all(format_path(parse_path(event.field_path)) == event.field_path for event in events)
    one, two = random.randrange(len(SCALARS)), random.randrange(len(SCALARS))
    yield "I9", same(SCALARS[one], SCALARS[two]) == (one == two)
    yield "I11", prove(past[0], digest) is None
    if events and events[-1].op != "remove":
        drift = reverse(set_value(final, events[-1].field_path, ["another value"]), events)
        yield "I7", isinstance(drift, Drift) and (drift.reason, drift.event) == ("value_mismatch", events[-1].n)
    unchanged = [canonical(list(event)) for event in events] == written
    yield "I5", unchanged and (canonical(initial), canonical(final)) == (first, last)
    yield "export", exported(made, final, events) == first == exported(made, final, shuffled)
    other = tampered(random, final)
    edited = reverse(other, shuffled)
    yield "export", exported(made, other, events) is None
    yield "guard", isinstance(edited, Drift)
    yield "hash", isinstance(edited, Drift) or prove(edited, digest) is not None


def block(seed: int, start: int, stop: int) -> tuple[Counter[str], Counter[str], list[str]]:
    """Checks made and checks failed by name, and the first histories that failed."""
    made: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    named: list[str] = []
    for number in range(start, stop):
        random = Random(f"{seed}/{number}")
        one = history(random)
        made.update(histories=1, events=len(one.events))
        made.update(event.op for event in one.events)
        for name, holds in check(one, random):
            made[name] += 1
            if not holds:
                failed[name] += 1
                if name != "guard":
                    named.append(f"{name} fails for history {number} of seed {seed}")
    return made, failed, named[:3]


def histories(n: int, seed: int, processes: int) -> pd.DataFrame:
    """A row per invariant: how often it was tried, and how often it failed."""
    made: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    starts = range(0, n, BLOCK)
    with ProcessPoolExecutor(processes) as pool:
        blocks = pool.map(block, repeat(seed), starts, [min(start + BLOCK, n) for start in starts])
        for done, (tried, wrong, named) in enumerate(blocks, 1):
            made += tried
            failed += wrong
            for line in named:
                print(line, file=sys.stderr)
            print(f"\r{done} of {len(starts)} blocks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    counts = ", ".join(f"{made[name]:,} {name}" for name in ("histories", "events", "set", "add", "remove"))
    print(f"{counts}\n")
    names = [*(f"I{number}" for number in range(1, 12)), "export"]
    table = pd.DataFrame(
        {"tried": {name: made[name] for name in names}, "failed": {name: failed[name] for name in names}}
    )
    for name, text in (
        ("guard", "results edited: found by guards alone"),
        ("hash", "results edited: found with the hash"),
    ):
        table.loc[text] = [made[name], failed[name]]
    return table


def microseconds(function: Callable[[], object], times: int = 5_000) -> float:
    """The best CPU time of five rounds, per call."""
    taken = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(times):
            function()
        taken.append((time.process_time() - start) / times)
    return 1e6 * min(taken)


def speed() -> str:
    """Undoing a correction of a letter under its guard, beside a test and a replace by jsonpatch."""
    result: Json = letter(Random(1), 1)
    paths = ("header.perihal", "personel[0].nrp", "header.perihal", "personel[1].nama")
    events: list[Event] = []
    for n, path in enumerate(paths, 1):
        events.append(Event(n, "set", path, get_value(result, path), f"value {n}"))
        result = set_value(result, path, f"value {n}")
    patch = jsonpatch.JsonPatch(to_json_patch([inverse(events[1])]))
    ours = microseconds(lambda: states(result, events)) / len(events)
    theirs = microseconds(lambda: patch.apply(result), 500)
    return f"{ours:.1f} microseconds to undo one correction, {theirs:.1f} with jsonpatch"


def main() -> None:
    """Print the table as Markdown, and how long one event takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=whole(), default=20_000, help="histories")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=whole(), default=1)
    asked = parser.parse_args()
    table = histories(asked.n, asked.seed, asked.processes)
    print(table.astype(int).to_markdown())
    print(f"\n{speed()}")
    if table["failed"].drop(table.index[-2]).any():
        sys.exit(1)


if __name__ == "__main__":
    main()
