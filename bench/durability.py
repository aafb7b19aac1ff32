"""Kill the writers of a store, and its server, at random moments, and look for what they had been told was written.

    python bench/durability.py                        200 acknowledged corrections on each: some two minutes
    python bench/durability.py --corrections 2000     as published: ten times as long
    python bench/durability.py --backend sqlite --corrections 2000 --seed 7

Two processes correct, approve and undo the same few letters. Each says what it did once the store has said that it is
done. Then they are killed (SIGKILL) at random moments, in every fourth round of PostgreSQL together with the whole
server, which recovers. After each round everything that was said has to be there, every chain has to hold, every first
output to be proved, and no writer may have left more than the one change that was written and not yet said.

A kill ends processes and not the machine: what the disk itself loses in a power failure is not shown here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa
from arguments import whole

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError
from ocr_sprint.review.chain import verify_chain
from ocr_sprint.review.database import reading
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.jobs import NewJob
from ocr_sprint.review.replay import Drift, prove, reverse
from ocr_sprint.review.schema import events, jobs
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.trail import job_entries

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from postgres_server import PostgresServer, connect, new_database, postgres_server

JOBS = 6
WRITERS = 2


def letter(number: int) -> NewJob:
    """A fictitious letter with two people."""
    return {
        "filename": f"sprint-{number:03}.pdf",
        "source_kind": "pdf",
        "document_sha256": sha256_hex(f"letter {number}".encode()),
        "pages": 1,
        "engine": "paddle",
        "result": {"header": {"perihal": None}, "personel": [{"nrp": "7706OOOO"}, {"nrp": "8001OOOI"}]},
        "confidence": 0.78,
        "field_confidence": {},
        "evidence": None,
        "review_flags": [],
        "ocr_text": "SURAT PERINTAH",
        "error": None,
    }


@dataclass
class Campaign:
    """What was done, and what is wrong."""

    acknowledged: list[dict[str, Any]] = field(default_factory=list)  # job_id, version, and n and value of a correction
    corrections: int = 0  # acknowledged ones
    rounds: int = 0
    client_kills: int = 0
    server_kills: int = 0
    unsaid: int = 0  # changes that were written, and their writer killed before it could say so
    seconds: float = 0.0


def change(store: Store, job_id: str, name: str, random: Random) -> dict[str, Any] | None:
    """One change of a letter; None when there was nothing to take back."""
    kind = random.choices(["correct", "approve", "undo"], [16, 2, 2])[0]
    if kind == "approve":
        return {"version": store.approve(job_id, by=name).version}
    if kind == "undo":
        try:
            return {"version": store.undo(job_id, by=name).version}
        except DataError:
            return None
    value = f"{name} {random.getrandbits(40)}"
    edits = [Edit("set", f"personel[{row}].nrp", value) for row in range(random.randint(1, 2))]
    return {"version": store.correct(job_id, edits, by=name).version, "value": value, "edits": len(edits)}


def write(url: str, name: str, seed: int) -> None:
    """Change letters without end, and say each change once it is done."""
    random = Random(seed)
    with open_store(url) as store:
        ids = [store.add_job(**letter(number)) for number in range(JOBS)]
        while True:
            job_id = random.choice(ids)
            done = change(store, job_id, name, random)
            if done:
                print(json.dumps({"job_id": job_id, **done}), flush=True)


def start_writer(url: str, name: str, seed: int) -> subprocess.Popen[str]:
    """A writer in a process of its own."""
    words = [sys.executable, __file__, "--write", url, name, str(seed)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def kill_round(url: str, campaign: Campaign, random: Random, server: PostgresServer | None) -> None:
    """Let writers work, kill them at a random moment, and note what they said."""
    campaign.rounds += 1
    names = [f"reviewer-{campaign.rounds}-{number}" for number in range(WRITERS)]
    writers = [start_writer(url, name, random.getrandbits(32)) for name in names]
    said = []
    if random.random() < 0.9:  # else they are killed while they start
        first = random.choice(writers).stdout
        assert first is not None
        said.append(first.readline())
        time.sleep(random.uniform(0, 0.06 if server is None else 0.3))  # some 20 changes, on either
    else:
        time.sleep(random.uniform(0, 1))
    with_server = server is not None and campaign.rounds % 4 == 0
    if server is not None and with_server:
        server.kill()
        campaign.server_kills += 1
    for writer in random.sample(writers, len(writers)):
        writer.kill()
        said += writer.communicate()[0].splitlines()
        campaign.client_kills += 1
        time.sleep(random.uniform(0, 0.003))
    if server is not None and with_server:
        server.start()
    found = [json.loads(line) for line in said if line.strip()]
    campaign.acknowledged += found
    campaign.corrections += sum("value" in one for one in found)


def settle(url: str) -> None:
    """Wait until the server has noticed that its clients are gone; what they had sent may still be committed."""
    if url.startswith("postgresql"):
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with connect(sa.make_url(url)) as connection:
            while (connection.execute(others).fetchone() or (0,))[0]:
                time.sleep(0.01)


def check(url: str, campaign: Campaign) -> None:
    """Everything that was said is there, and everything that is there fits together; AssertionError otherwise."""
    with open_store(url) as store:
        known = {job.job_id: job for job in store.jobs()}
        changes = 0
        for job_id, job in known.items():
            with reading(store.engine) as connection:
                entries, head = job_entries(connection, job_id)
                numbers = connection.execute(
                    sa.select(events.c.n, events.c.new_value)
                    .join(jobs, jobs.c.seq == events.c.job_seq)
                    .where(jobs.c.job_id == job_id)
                    .order_by(events.c.n)
                ).all()
            assert verify_chain(entries, head) is None, f"job {job_id}: the chain does not hold"
            assert [n for n, _ in numbers] == list(range(1, len(numbers) + 1)), f"job {job_id}: a correction is missing"
            first = reverse(job.result, store.events(job_id))
            assert not isinstance(first, Drift) and prove(first, job.initial_sha256 or "") is None, f"job {job_id}"
            written = [json.loads(value) for _, value in numbers]
            mine = [one for one in campaign.acknowledged if one["job_id"] == job_id]
            for one in mine:
                if "value" in one:
                    there = written.count(one["value"])
                    assert there >= one["edits"], f"job {job_id}: lost {one}"
            versions = [one["version"] for one in mine if "value" in one]
            assert len(set(versions)) == len(versions), f"job {job_id}: one version was given twice"
            assert job.version >= max((one["version"] for one in mine), default=1), f"job {job_id}: an older version"
            changes += job.version - 1
        told = {(one["job_id"], one["version"]) for one in campaign.acknowledged if one["version"] > 1}
        campaign.unsaid = changes - len(told)
        assert 0 <= campaign.unsaid <= campaign.rounds * WRITERS, f"{campaign.unsaid} changes that nobody spoke of"
        if store.engine.dialect.name == "sqlite":
            with reading(store.engine) as connection:
                assert connection.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"


def run_campaign(
    url: str, corrections: int, seed: int, server: PostgresServer | None = None, least_rounds: int = 0
) -> Campaign:
    """Rounds of kills until so many corrections were acknowledged, with a check after each."""
    campaign, random, begun = Campaign(), Random(seed), time.monotonic()
    while campaign.corrections < corrections or campaign.rounds < least_rounds:
        kill_round(url, campaign, random, server)
        settle(url)
        check(url, campaign)
    campaign.seconds = time.monotonic() - begun
    return campaign


@contextmanager
def store_of(backend: str) -> Iterator[tuple[str, PostgresServer | None]]:
    """An empty database; PostgreSQL's on a server of its own that keeps what it acknowledges, for it is killed."""
    if backend == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/store.db", None
    else:
        with postgres_server(durable=True) as server, new_database(server.url) as url:
            yield url, server


def main() -> None:
    """Run the campaign and print a line for each backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["sqlite", "postgresql"], action="append", help="else both")
    parser.add_argument("--corrections", type=whole(), default=200, help="acknowledged, on each backend")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        url, name, seed = given.write
        write(url, name, int(seed))
    os.environ.pop("OCR_SPRINT_STORE", None)
    for backend in given.backend or ["sqlite", "postgresql"]:
        with store_of(backend) as (url, server):
            done = run_campaign(url, given.corrections, given.seed, server)
        print(
            f"{backend}: {done.corrections} acknowledged corrections in {done.rounds} rounds, {done.client_kills} "
            f"writers and {done.server_kills} servers killed, {done.unsaid} changes written and not yet said, 0 lost, "
            f"every chain holds ({done.seconds:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
