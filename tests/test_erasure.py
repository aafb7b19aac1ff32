"""After an erasure nothing of a letter is left, in the tables or on the disk, and everything else is as it was."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from queue_samples import read
from review_samples import Ticking, new_job
from sqlalchemy import select
from sqlalchemy.event import listen

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review import erasure
from ocr_sprint.review.changes import changes
from ocr_sprint.review.database import reading
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.erasure import erase, scrub
from ocr_sprint.review.filters import Filters
from ocr_sprint.review.ledger import NotFoundError
from ocr_sprint.review.queue import claim, finish, submit
from ocr_sprint.review.schema import documents, jobs, metadata, runs, tombstones
from ocr_sprint.review.second_review import submit_second
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.verify_store import verify_store
from ocr_sprint.tools.cli import main

SCAN = b"%PDF-1.7 a letter about SRI WAHYUNI"
DIGEST = sha256_hex(SCAN)


@pytest.fixture
def store(url: str) -> Any:
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def rich(store: Store, number: int = 1, content: bytes = SCAN) -> str:
    "A job of which every table knows something."
    job = new_job(number, document_sha256=sha256_hex(content), ocr_text="SURAT PERINTAH SRI WAHYUNI")
    job_id = store.add_job(**job, document=content)
    store.correct(job_id, [Edit("set", "header.perihal", "SRI WAHYUNI")], by="reviewer-a", reason="SRI WAHYUNI")
    store.approve(job_id, by="reviewer-a")
    submit_second(store, job_id, [Edit("set", "header.perihal", "SRI W.")], by="reviewer-b")
    store.add_job(**job | {"engine": "another"}, rerun=True)
    store.correct(job_id, [Edit("set", "header.perihal", "SRI WAHYUNI, S.H.")], by="reviewer-a")
    store.approve(job_id, by="reviewer-c")
    return job_id


def rows(store: Store) -> dict[str, set[tuple[Any, ...]]]:
    with reading(store.engine) as connection:
        tables = (table for table in metadata.sorted_tables if table.name != "properties")
        return {table.name: {tuple(row) for row in connection.execute(table.select())} for table in tables}


def test_every_table_forgets_the_letter_and_nothing_else(store: Store) -> None:
    rich(store, 2, b"%PDF-1.7 another letter")
    others = rows(store)
    job_id = rich(store)
    known = {name for name, found in rows(store).items() if found - others[name]}
    assert known == {"jobs", "documents", "runs", "archived_results", "events", "approvals", "second_reviews"}
    erase(store, job_id, by="dpo", reason="request 2025/17")
    after = rows(store)
    ((seq, stone_id, at, by, reason, _, place),) = after.pop("tombstones")
    assert (stone_id, by, reason) == (job_id, "dpo", "request 2025/17")
    assert at >= "2025-"
    del others["tombstones"]
    assert after == others
    assert list(verify_store(store)) == []
    with pytest.raises(NotFoundError):
        store.job(job_id)
    with reading(store.engine) as connection:
        assert place > connection.execute(select(jobs.c.change_seq)).scalar_one()
        assert seq not in set(connection.execute(select(jobs.c.seq)).scalars())


def test_who_follows_the_feed_drops_the_letter(store: Store) -> None:
    job_id, other = rich(store), rich(store, 2, b"%PDF-1.7 another letter")
    everything = Filters(approved_only=False)
    seen = changes(store, everything)
    assert {change.job_id for change in seen.changes} == {job_id, other}
    erase(store, job_id, by="dpo")
    told = changes(store, everything, seen.cursor)
    assert told.changes == [(job_id, None)]
    assert rich(store) == job_id
    again = changes(store, everything, told.cursor)
    assert [change.job_id for change in again.changes] == [job_id]
    assert again.changes[0].line is not None
    from_the_start = dict(changes(store, everything).changes)
    assert {name for name, line in from_the_start.items() if line is not None} == {job_id, other}


def test_a_letter_that_comes_again_begins_anew(store: Store) -> None:
    job_id = rich(store)
    for number in range(3):
        with reading(store.engine) as connection:
            (seq,) = connection.execute(select(jobs.c.seq)).scalars()
        erase(store, job_id, by="dpo", reason=f"request {number}")
        assert store.add_job(**new_job(1, document_sha256=DIGEST), document=SCAN) == job_id
        job = store.job(job_id)
        assert (job.run, job.version, job.approved, store.events(job_id)) == (1, 1, False, [])
        with reading(store.engine) as connection:
            assert connection.execute(select(jobs.c.seq)).scalar_one() > seq
            with pytest.raises(DataError, match="append-only"), store.engine.begin() as direct:
                try:
                    direct.execute(runs.delete())
                except Exception as error:
                    raise DataError(str(error)) from None
    with reading(store.engine) as connection:
        assert len(connection.execute(tombstones.select()).all()) == 3
    assert list(verify_store(store)) == []


def test_what_a_worker_reads_meanwhile_is_dropped(store: Store) -> None:
    job_id = submit(store, "sprint-001.pdf", SCAN).job_id
    task = claim(store, "worker-1", 60)
    assert task is not None
    erase(store, job_id, by="dpo")
    assert finish(store, task, **read(task)) is False
    assert submit(store, "sprint-001.pdf", SCAN).new is True
    assert finish(store, task, **read(task)) is False
    assert store.job(job_id).status == "queued"


def test_an_erasure_that_fails_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = rich(store)
    before = rows(store)

    class Broken:
        c = documents.c

        def delete(self) -> None:
            raise DataError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "documents", Broken())
        with pytest.raises(DataError, match="the disk is full"):
            erase(store, job_id, by="dpo")
    assert rows(store) == before
    for reason in ("", "x" * 501, "a\0b"):
        with pytest.raises(UsageError, match="1 to 500 characters"):
            erase(store, job_id, by="dpo", reason=reason)
    with pytest.raises(DataError, match="surrogate"):
        erase(store, job_id, by="dpo", reason="\ud800")
    assert rows(store) == before


def test_corrections_at_the_same_time_come_before_or_not_at_all(store: Store) -> None:
    job_ids = [store.add_job(**new_job(number)) for number in range(12)]
    begin, answers = threading.Barrier(2), []

    def correct() -> None:
        for number, job_id in enumerate(job_ids):
            begin.wait()
            try:
                answers.append(store.correct(job_id, [Edit("set", "header.perihal", str(number))], by="a").version)
            except NotFoundError:
                answers.append(0)

    reviewer = threading.Thread(target=correct)
    reviewer.start()
    for job_id in job_ids:
        begin.wait()
        erase(store, job_id, by="dpo")
    reviewer.join()
    assert set(answers) <= {0, 2}
    assert len(answers) == 12
    assert rows(store)["events"] == rows(store)["jobs"] == set()


# On the disk


def on_disk(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.glob("store.db*")) if b"SRI WAHYUNI" in path.read_bytes()]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_no_byte_is_left_in_the_files(store: Store, tmp_path: Path) -> None:
    job_id = rich(store)
    for number in range(2, 30):
        store.add_job(**new_job(number))
    assert scrub(store)
    assert on_disk(tmp_path) == ["store.db"]
    erase(store, job_id, by="dpo")
    assert on_disk(tmp_path) != []
    assert scrub(store)
    assert on_disk(tmp_path) == []
    assert list(verify_store(store)) == []


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_reader_keeps_the_log_and_that_is_told(
    store: Store, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = rich(store)
    with reading(store.engine) as connection:
        connection.execute(select(jobs.c.seq)).all()
        assert main(["erase", job_id, "--by", "dpo", "--store", url]) == 3
        assert "its log holds the letter" in capsys.readouterr().err
        assert connection.execute(select(jobs.c.job_id)).scalar_one() == job_id
    assert scrub(store)
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize("backend", ["postgresql"])
def test_every_table_that_an_erasure_deletes_from_is_cleaned(store: Store) -> None:
    said: list[str] = []
    listen(store.engine, "before_cursor_execute", lambda *about: said.append(about[2]))
    job_id = rich(store)
    erase(store, job_id, by="dpo")
    assert scrub(store)
    deleted = {each.split()[2].strip('"') for each in said if each.startswith("DELETE FROM")}
    vacuum = next(each for each in said if each.startswith("VACUUM"))
    assert "properties" in deleted
    assert deleted <= set(vacuum.removeprefix("VACUUM ").split(", "))


def test_the_tables_can_be_written_anew(store: Store, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = rich(store), rich(store, 2, b"%PDF-1.7 2"), rich(store, 3, b"%PDF-1.7 3")
    assert main(["erase", first, "c5da6747", "--by", "dpo", "--store", url]) == 1
    assert [job.job_id for job in store.jobs()] == [first, second, third]
    assert main(["erase", first, second, first, "--by", "dpo", "--rewrite", "--store", url]) == 0
    assert capsys.readouterr().out == f"erased\t{first}\nerased\t{second}\n"
    assert [job.job_id for job in store.jobs()] == [third]
    assert list(verify_store(store)) == []
