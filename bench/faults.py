"""Damage a store in one place at a time, and see what finds it.

    python bench/faults.py --n 10000 --seed 1    faults in stored results and events, by what was damaged

Whoever owns the file can drop its triggers; so does this. Three ways of looking are compared: undoing the corrections
with their guards alone, also comparing the hash of the first output, and `verify`, which walks the chain too.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import orjson
import pandas as pd
from arguments import whole
from replay import change, copied, tampered, value

from ocr_sprint.core.canonical import Json, sha256_hex
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.replay import Drift, Event, prove, states
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.verify_store import verify_store

JOBS = 12
COLUMNS = (
    "n", "run", "op", "field_path", "old_value", "new_value", "corrected_by", "actor", "reason", "corrected_at",
    "batch", "reverts", "prev_hash", "hash", "job_seq",
)  # fmt: skip


class Fault(NamedTuple):
    """What is damaged, and the statement that does it."""

    kind: str
    statement: str
    values: Sequence[Any]


def letter(random: Random) -> Json:
    """A random result with lists of rows and a header."""
    return {"header": value(random, 2), "personel": [value(random, 2) for _ in range(4)], "dasar": ["a", "b"], "x": 1}


def new_job(number: int, result: Json) -> dict[str, Any]:
    """A fictitious document."""
    return {
        "filename": f"{number}.pdf", "source_kind": "pdf", "document_sha256": sha256_hex(b"%d" % number), "pages": 1,
        "engine": "fiction", "result": result, "confidence": 0.8, "field_confidence": {}, "evidence": None,
        "review_flags": [], "ocr_text": None, "error": None,
    }  # fmt: skip


def review(store: Store, random: Random, job_id: str) -> None:
    """Some batches of corrections, an undo and approvals."""
    for _ in range(random.randint(1, 4)):
        model, edits = copied(store.job(job_id).result), []
        for n in range(random.randint(1, 3)):
            event = change(random, model, n)
            edits.append(Edit(event.op, event.field_path, event.new_value))
        job = store.correct(job_id, edits, by=random.choice(("reviewer-a", "reviewer-b")), reason="seen")
        if random.random() < 0.2 and store.events(job_id):
            store.undo(job_id, by="reviewer-b")
        if random.random() < 0.5:
            store.approve(job.job_id, by="reviewer-a")


def make(url: str, random: Random) -> None:
    """A store of reviewed letters, a few of them read twice."""
    with open_store(url) as store:
        for number in range(JOBS):
            job_id = store.add_job(**new_job(number, letter(random)))
            review(store, random, job_id)
            if number % 4 == 0:
                store.add_job(rerun=True, **new_job(number, letter(random)))
                review(store, random, job_id)
        assert list(verify_store(store)) == []


def other_text(random: Random, old: str) -> str:
    """Another text than the one that stands there."""
    return old + random.choice((" ", "x", "0")) if random.random() < 0.5 or not old else old[1:]


def other(random: Random, column: str, old: Any) -> Any:
    """Another value that a column could hold."""
    if column in ("old_value", "new_value"):
        return orjson.dumps(tampered(random, [orjson.loads(old)])).decode()
    if column == "op":
        return random.choice([op for op in ("set", "add", "remove") if op != old])
    if isinstance(old, int):
        return old + random.choice((1, -1, 7))
    if old is None:
        return 1 if column == "reverts" else "somebody"
    return None if column in ("actor", "reason") and random.random() < 0.3 else other_text(random, old)


def damage(random: Random, rows: sqlite3.Connection) -> Fault:
    """One random fault that changes something."""
    where = random.random()
    if where < 0.4:
        seq, text = random.choice(rows.execute("SELECT seq, result FROM jobs").fetchall())
        new = orjson.dumps(tampered(random, orjson.loads(text))).decode()
        return Fault("result: a value, row or key", "UPDATE jobs SET result = ? WHERE seq = ?", (new, seq))
    event = random.choice(rows.execute("SELECT * FROM events").fetchall())
    names = [column[0] for column in rows.execute("SELECT * FROM events LIMIT 0").description]
    old = dict(zip(names, event, strict=True))
    key = (old["job_seq"], old["n"])
    if where < 0.5:
        return Fault("event row: deleted", "DELETE FROM events WHERE job_seq = ? AND n = ?", key)
    if where < 0.6:
        last = rows.execute("SELECT max(n) FROM events WHERE job_seq = ?", key[:1]).fetchone()[0]
        copy = list((old | {"n": last + 1, "batch": last + 1}).values())
        return Fault("event row: repeated", f"INSERT INTO events VALUES ({', '.join('?' * len(copy))})", copy)
    column = random.choice(COLUMNS)
    while (new := other(random, column, old[column])) == old[column]:
        pass
    return Fault(f"event: {column}", f"UPDATE events SET {column} = ? WHERE job_seq = ? AND n = ?", (new, *key))


def damaged(random: Random, rows: sqlite3.Connection) -> Fault:
    """Do one fault that the primary key lets pass."""
    while True:
        fault = damage(random, rows)
        with suppress(sqlite3.IntegrityError):
            rows.execute(fault.statement, fault.values)
            return fault


def events_of(rows: sqlite3.Connection, seq: int, run: int) -> list[Event]:
    """The corrections of one run as they stand; a value that is no JSON stands as text."""
    found = rows.execute(
        "SELECT n, op, field_path, old_value, new_value FROM events WHERE job_seq = ? AND run = ?", (seq, run)
    )
    return [Event(n, op, path, orjson.loads(old), orjson.loads(new), run=run) for n, op, path, old, new in found]


def replayed(rows: sqlite3.Connection) -> tuple[bool, bool]:
    """Whether undoing the corrections of any run finds something: by its guards, and with the hash."""
    hashed = False
    for seq, run, digest in rows.execute("SELECT job_seq, run, initial_sha256 FROM runs").fetchall():
        text = rows.execute(
            "SELECT result FROM jobs WHERE seq = :seq AND run = :run UNION ALL "
            "SELECT result FROM archived_results WHERE job_seq = :seq AND run = :run",
            {"seq": seq, "run": run},
        ).fetchone()[0]
        past = states(orjson.loads(text), events_of(rows, seq, run))
        if isinstance(past, Drift):
            return True, True
        hashed |= prove(past[0], digest) is not None
    return False, hashed


def campaign(n: int, seed: int) -> pd.DataFrame:
    """A row per kind of fault: how often it was tried, and how often each way of looking found it."""
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        make(f"sqlite:///{path}", Random(f"{seed}/store"))
        with closing(sqlite3.connect(path, isolation_level=None)) as rows, open_store(f"sqlite:///{path}") as store:
            disarm(rows)
            for number in range(n):
                random = Random(f"{seed}/{number}")
                undo, fault = snapshot(rows), damaged(random, rows)
                guard, hashed = replayed(rows)
                found = next(verify_store(store), None)
                undo()
                count = counts.setdefault(fault.kind, Counter())
                count.update({"tried": 1, "guards": guard, "with the hash": hashed, "verify": found is not None})
                if found is None:
                    print(f"fault {number} of seed {seed} is not found: {fault}", file=sys.stderr)
            assert next(verify_store(store), None) is None, "the faults were not taken back"
    table = pd.DataFrame(counts).T.sort_index()
    table.loc["all"] = table.sum()
    return table


def disarm(rows: sqlite3.Connection) -> None:
    """Take away what keeps the rows as they are, as the owner of the file can."""
    for (name,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        rows.execute(f"DROP TRIGGER {name}")
    rows.execute("PRAGMA foreign_keys = OFF")
    rows.execute("PRAGMA ignore_check_constraints = ON")
    rows.execute("PRAGMA synchronous = OFF")


def snapshot(rows: sqlite3.Connection) -> Callable[[], None]:
    """Remember events and results; what is given puts them back."""
    events = rows.execute("SELECT * FROM events").fetchall()
    results = rows.execute("SELECT result, seq FROM jobs").fetchall()

    def undo() -> None:
        rows.execute("BEGIN")
        rows.execute("DELETE FROM events")
        rows.executemany(f"INSERT INTO events VALUES ({', '.join('?' * len(events[0]))})", events)
        rows.executemany("UPDATE jobs SET result = ? WHERE seq = ?", results)
        rows.execute("COMMIT")

    return undo


def main() -> None:
    """Print the table as Markdown; exit 1 when `verify` misses a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=whole(), default=500, help="faults")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    table = campaign(asked.n, asked.seed)
    print(table.astype(int).to_markdown())
    if (table["verify"] < table["tried"]).any():
        sys.exit(1)


if __name__ == "__main__":
    main()
