"""Measure the export: CPU against a raw read of the same columns, rows per second by each way out, and memory.

    python bench/export.py                    100,000 letters: about a quarter of an hour
    python bench/export.py --n 10000          for a look
    python bench/export.py --memory 1000000   the peak memory at that size too, on SQLite

Stores are made on the spot from a seed (see review_stores.py). CPU seconds are those of the exporting process, the best
of three rounds in which the ways take turns; wall times depend on what else the machine does. The tables go to
bench/results/export.md and to the standard output.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import jsonpatch
import pandas as pd
import psutil
from review_stores import edits, fill, letter

from ocr_sprint.core.canonical import Json
from ocr_sprint.review.changes import changes
from ocr_sprint.review.edits import plan
from ocr_sprint.review.export import blocks, export_lines, write_corpus
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.manifest import differences, manifest_path
from ocr_sprint.review.replay import Event, inverse, reverse, to_json_patch
from ocr_sprint.review.samples import rows, sample_queries, snapshot
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.tokens import create_token
from ocr_sprint.review.verify_corpus import verify_corpus
from ocr_sprint.review.verify_store import verify_store

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "export.md"
BLOCK = 64 * 1024


def raw_read(store: Store) -> None:
    """The floor: every column of both queries, merged, joined as text and written, and nothing understood."""
    first, second = sample_queries(ALL)
    block: list[str] = []
    held = 0
    with (
        Path(os.devnull).open("wb", buffering=0) as out,
        snapshot(store.engine) as (one, two),
        closing(rows(one, first)) as jobs,
        closing(rows(two, second)) as events,
    ):
        event = next(events, None)
        for job in jobs:
            block.append("\t".join(map(str, job)))
            held += len(block[-1])
            while event is not None and event[-1] == job[0]:
                block.append("\t".join(map(str, event)))
                held += len(block[-1])
                event = next(events, None)
            if held >= BLOCK:
                out.write("\n".join(block).encode())
                block, held = [], 0
        out.write("\n".join(block).encode())


def export(store: Store, as_of: Any = None) -> None:
    """The export as a stream: guard and proof of every letter."""
    with Path(os.devnull).open("wb", buffering=0) as out:
        for block in blocks(export_lines(store, ALL, as_of=as_of)):
            out.write(block)


def hashed_export(store: Store) -> None:
    """The same, with the hash of the whole."""
    digest = hashlib.sha256()
    for block in blocks(export_lines(store, ALL)):
        digest.update(block)


def cpu_seconds(deeds: dict[str, Callable[[], object]], times: int = 3) -> dict[str, float]:
    """CPU seconds of this process for each deed: the best of some rounds in which they take turns."""
    best = dict.fromkeys(deeds, float("inf"))
    for _ in range(times):
        for name, deed in deeds.items():
            start = os.times()
            deed()
            end = os.times()
            best[name] = min(best[name], end.user + end.system - start.user - start.system)
    return best


def cpu_table(stores: dict[str, Store], count: int, folder: Path) -> pd.DataFrame:
    """CPU of the export against the raw read, on each backend."""
    table = {}
    for name, store in stores.items():
        corpus = folder / f"{name}.jsonl"
        deeds: dict[str, Callable[[], object]] = {
            "raw read of the same columns": lambda store=store: raw_read(store),
            "export, with guard and proof": lambda store=store: export(store),
            "... and the hash of the whole": lambda store=store: hashed_export(store),
            "corpus, manifest and index on the disk": lambda s=store, c=corpus: write_corpus(s, c, ALL),
        }
        taken = cpu_seconds(deeds)
        raw = taken["raw read of the same columns"]
        for deed, seconds in taken.items():
            table[f"{name}: {deed}"] = {"CPU s": seconds, "of raw": seconds / raw, "rows per CPU s": count / seconds}
    return pd.DataFrame(table).T


def run(words: Sequence[str]) -> tuple[float, float, str]:
    """Wall seconds and CPU seconds of a command, and the last line that it said."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{words} ended with {process.returncode}: {said}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, said.strip().rpartition("\n")[2]


# The command, which tells in the end how large it was: what wait4 tells of it includes the process that started it.
COMMAND = """import sys
from ocr_sprint.tools.export_ground_truth import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def command_row(url: str, count: int, out: Path, times: int = 3) -> dict[str, float]:
    """The command from start to end: its corpus, manifest and index on the disk, its record in the store."""
    words = [sys.executable, "-c", COMMAND, "--store", url, "--no-approved-only", "--out", str(out)]
    runs = [run(words) for _ in range(times)]
    wall, cpu = min(taken[0] for taken in runs), min(taken[1] for taken in runs)
    return {"rows per s": count / wall, "CPU s": cpu, "peak MB": max(int(said) for _, _, said in runs) / 1024}


DOWNLOAD = """import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"})
with urllib.request.urlopen(request) as answer:
    while answer.read(1 << 20): pass
"""


@contextmanager
def service(url: str, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A running service, and its process."""
    words = ["serve", "--port", "0", "--workers", "0", "--snapshots", str(folder / "snapshots"), "--store", url]
    words += ["--exports", "100000/minute", "--requests", "100000/minute"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ocr_sprint.tools.cli", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"serving at (http://\S+)", line)
            if found:
                yield found[1], psutil.Process(process.pid)
                return
        sys.exit("the service does not start")
    finally:
        process.terminate()
        process.wait(30)


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return times.user + times.system


def light_requests(base: str, until: Callable[[], bool]) -> list[float]:
    """Milliseconds of light requests, one after the other with a pause, until something is over."""
    taken: list[float] = []
    connection = http.client.HTTPConnection(base.removeprefix("http://"))
    while not until():
        start = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        taken.append(1000 * (time.perf_counter() - start))
        time.sleep(0.01)
    connection.close()
    return taken


def http_rows(url: str, count: int, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """One live export from start to end; and light requests while three exports run."""
    with open_store(url) as store:
        tokens = [create_token(store, f"bench {number}", "admin") for number in range(2)]
    with service(url, folder) as (base, process):
        address = f"{base}/api/v1/ground-truth/export?approved_only=false"
        download = [sys.executable, "-c", DOWNLOAD, address]
        before, walls = cpu_of(process), []
        for _ in range(3):
            walls.append(run([*download, tokens[0]])[0])
        cpu = (cpu_of(process) - before) / 3
        deadline = time.monotonic() + 5
        alone = pd.Series(light_requests(base, lambda: time.monotonic() > deadline))
        running = [subprocess.Popen([*download, tokens[number // 2]]) for number in range(3)]
        busy = pd.Series(light_requests(base, lambda: all(each.poll() is not None for each in running)))
        if any(each.returncode for each in running):
            sys.exit("a download failed")
        peak = process.memory_info().rss / 2**20
    row = {"rows per s": count / min(walls), "CPU s": cpu, "peak MB": peak}
    shares = {"median": 0.5, "p99": 0.99, "greatest": 1.0}
    quiet = {f"{name} alone, ms": float(alone.quantile(share)) for name, share in shares.items()}
    loaded = {f"{name} during three exports, ms": float(busy.quantile(share)) for name, share in shares.items()}
    return row, {**quiet, **loaded, "requests": len(busy)}


def histories(count: int, seed: int) -> list[tuple[Json, Json, list[Event]]]:
    """First output, result and corrections of some letters."""
    made: list[tuple[Json, Json, list[Event]]] = []
    for number in range(count):
        random = Random(f"{seed} history {number}")
        first = letter(random, number)
        result, events = plan(first, edits(random), Event(1, "set", "", None, None))
        made.append((first, result, events))
    return made


def replay_row(seed: int, count: int = 2_000) -> dict[str, float]:
    """Microseconds per event to undo a history: guard and change, ours against jsonpatch's test and replace."""
    made = histories(count, seed)
    number = sum(len(events) for _, _, events in made)
    patches = [to_json_patch([inverse(event) for event in reversed(events)]) for _, _, events in made]

    def ours() -> None:
        for first, result, events in made:
            assert reverse(result, events) == first

    def theirs() -> None:
        for (first, result, _), patch in zip(made, patches, strict=True):
            assert jsonpatch.apply_patch(result, patch) == first

    taken = cpu_seconds({"ours": ours, "jsonpatch": theirs})
    row = {f"{name}, µs per event": 1e6 * seconds / number for name, seconds in taken.items()}
    return {**row, "times as fast": taken["jsonpatch"] / taken["ours"], "events": number}


def other_rows(store: Store, count: int, folder: Path) -> pd.DataFrame:
    """What else walks over a whole store or corpus."""
    last = max(job.changed_at for job in islice(store.jobs(), 200))
    moment = pd.Timestamp(last).to_pydatetime() + pd.Timedelta(days=10_000)
    corpus = folder / "SQLite.jsonl"
    half = folder / "half.jsonl"
    write_corpus(store, half)

    def follow() -> None:
        cursor = None
        while True:
            answer = changes(store, ALL, cursor)
            cursor = answer.cursor
            if not answer.more:
                return

    deeds: dict[str, Callable[[], object]] = {
        "export as of a moment": lambda: export(store, moment),
        "feed of changes from the beginning": follow,
        "verify a corpus": lambda: verify_corpus(corpus),
        "diff of two manifests": lambda: list(differences(manifest_path(half), manifest_path(corpus))),
        "verify the store": lambda: list(verify_store(store)),
    }
    taken = cpu_seconds(deeds, times=1)
    return pd.DataFrame({name: {"CPU s": cpu, "rows per CPU s": count / cpu} for name, cpu in taken.items()}).T


def main() -> None:
    """Measure, write and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="letters")
    parser.add_argument("--memory", type=int, nargs="*", default=[], help="further sizes for the peak memory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the stores here, and use those that are here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(asked.n, asked.memory, asked.seed, Path(scratch), asked.folder or Path(scratch))


def measure(count: int, sizes: Sequence[int], seed: int, scratch: Path, folder: Path) -> None:
    """All tables, in the order of the page that shows them."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from postgres_server import new_database, postgres_server

    def sqlite(size: int) -> str:
        path = folder / f"letters-{seed}-{size}.db"
        if not path.exists():
            with open_store(f"sqlite:///{path}.part") as store:
                fill(store, size, seed)
            Path(f"{path}.part").rename(path)
        return f"sqlite:///{path}"

    parts = [f"{count:,} letters, seed {seed}; {platform.python_version()}, {os.cpu_count()} cores"]

    def show(title: str, table: pd.DataFrame, digits: int = 2) -> None:
        parts.append(f"## {title}\n\n{table.to_markdown(floatfmt=f',.{digits}f')}")
        print(f"{parts[-1]}\n", flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n\n".join(parts) + "\n")

    ways, out = {}, scratch / "command.jsonl"
    with postgres_server() as server, new_database(server.url) as url:
        with open_store(url) as store:
            fill(store, count, seed)
            with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
        with open_store(sqlite(count)) as store, open_store(url) as other:
            show("CPU", cpu_table({"SQLite": store, "PostgreSQL": other}, count, scratch))
            show("Beside the export", other_rows(store, count, scratch))
        ways["command, SQLite"] = command_row(sqlite(count), count, out)
        ways["command, PostgreSQL"] = command_row(url, count, out)
    ways["HTTP, SQLite"], light = http_rows(sqlite(count), count, scratch)
    show("Ways out", pd.DataFrame(ways).T, 1)
    show("A light request beside exports", pd.DataFrame({"GET /health": light}).T, 1)
    show("Replay", pd.DataFrame({"undo one correction": replay_row(seed)}).T)
    small = min(10_000, count)
    peaks = {f"{size:,}": command_row(sqlite(size), size, out, 1) for size in sorted({small, count, *sizes})}
    show("Memory of the command", pd.DataFrame(peaks).T, 1)
    print(f"written to {RESULTS.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
