"""Stores with a past for the tests of export, history, feed and verification."""

import datetime
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import strategies as st
from review_samples import corrections, new_job, results

from ocr_sprint.core.errors import DataError
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.erasure import erase
from ocr_sprint.review.queue import claim, finish, submit
from ocr_sprint.review.schema import metadata
from ocr_sprint.review.second_review import submit_second
from ocr_sprint.review.store import open_store

REVIEWERS = ("reviewer-a", "reviewer-b")
PERIHAL = "header.perihal"


def filled(store):
    """Five letters: approved and corrected, approved as read, corrected only, untouched, failed."""
    ids = [store.add_job(**new_job(number)) for number in range(4)]
    ids.append(store.add_job(**new_job(4, error="encrypted") | {"result": None, "confidence": None}))
    store.correct(
        ids[0], [Edit("set", PERIHAL, "Patroli"), Edit("set", "personel[0].nrp", "77060000")], by="reviewer-a"
    )
    store.correct(ids[2], [Edit("add", "personel[1]", {"nrp": "90010001"})], by="reviewer-b", reason="row missed")
    store.approve(ids[0], by="reviewer-a")
    store.approve(ids[1], by="reviewer-a")
    return ids


# What a hand in the database can do to `filled`, and what the export says of it.
DAMAGE = {
    "corrected field": ("UPDATE jobs SET result = replace(result, 'Patroli', 'Razia') WHERE seq = 1", "value_mismatch"),
    "other field": ("UPDATE jobs SET result = replace(result, '8001OOOI', '80010001') WHERE seq = 1", "hash_mismatch"),
    "uncorrected job": ("UPDATE jobs SET result = replace(result, '7706', '7707') WHERE seq = 2", "hash_mismatch"),
    "key added": ("UPDATE jobs SET result = '{\"x\":1,' || substr(result, 2) WHERE seq = 2", "hash_mismatch"),
    "no JSON": ("UPDATE jobs SET result = substr(result, 2) WHERE seq = 1", "bad_json"),
    "old value": ("UPDATE events SET old_value = '\"\"' WHERE job_seq = 1 AND n = 1", "hash_mismatch"),
    "new value": ("UPDATE events SET new_value = '\"\"' WHERE job_seq = 1 AND n = 1", "value_mismatch"),
    "value no JSON": ("UPDATE events SET old_value = '{' WHERE job_seq = 1 AND n = 1", "value_mismatch"),
    "path": ("UPDATE events SET field_path = 'header..x' WHERE job_seq = 1 AND n = 1", "bad_path"),
    "first event gone": ("DELETE FROM events WHERE job_seq = 1 AND n = 1", "hash_mismatch"),
    "last event gone": ("DELETE FROM events WHERE job_seq = 1 AND n = 2", "hash_mismatch"),
    "numbers": ("UPDATE events SET n = 7 WHERE job_seq = 1 AND n = 2", "numbering"),
    "hash": ("UPDATE runs SET initial_sha256 = '00', text_sha256 = '00' WHERE job_seq = 1", "hash_mismatch"),
    "result gone": ("UPDATE jobs SET result = NULL, error = 'lost', status = 'failed' WHERE seq = 1", "no_result"),
}


def by_hand(store, *statements):
    """What somebody with a database shell does, past every trigger and reference."""
    if store.engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(store.engine.url.database, timeout=30)) as connection:
            triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            for statement in (*statements, *(text for _, text in triggers)):
                connection.execute(statement)
            connection.commit()
        return
    with store.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows_of(store, name):
    """All rows of a table, as dictionaries in the order of its key."""
    table = metadata.tables[name]
    with store.engine.connect() as connection:
        return [row._asdict() for row in connection.execute(table.select().order_by(*table.primary_key))]


class Stories:
    """Makes empty stores quickly: copies of one file, or one database that is emptied."""

    def __init__(self, new_url, backend) -> None:
        self.url, self.count = new_url(backend), 0
        open_store(self.url).close()

    def __call__(self):
        """A new story in an empty store; the one before has ended."""
        self.count += 1
        if self.url.startswith("sqlite"):
            path = Path(self.url.removeprefix("sqlite:///"))
            shutil.copy(path, path.with_name(f"story-{self.count}.db"))
            return Story(f"sqlite:///{path.with_name(f'story-{self.count}.db')}")
        with open_store(self.url, create=False) as store:
            names = ", ".join(name for name in metadata.tables if name != "properties")
            by_hand(store, f"TRUNCATE {names}")
        return Story(self.url)


class Clock:
    """A clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now = datetime.datetime(2025, 5, 28, 8, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now


class Story:
    """A store to which anything may happen that a store allows."""

    def __init__(self, url) -> None:
        self.clock = Clock()
        self.store = open_store(url, create=False, clock=self.clock)
        self.jobs: list[str] = []
        self.erased: set[str] = set()
        self.documents = 0

    def add(self, draw):
        """A new letter, sometimes one that cannot be read, or one that waits."""
        self.documents += 1
        kind = draw(st.sampled_from(["done", "done", "done", "failed", "queued"]))
        if kind == "queued":
            self.jobs.append(
                submit(self.store, f"sprint-{self.documents}.pdf", b"%%PDF-1.7 %d" % self.documents).job_id
            )
            return
        result = draw(results)
        said = {"result": result} if kind == "done" else {"result": None, "confidence": None, "error": "encrypted"}
        self.jobs.append(self.store.add_job(**new_job(self.documents) | said))

    def send_again(self, draw):
        """A document comes once more: one that could not be read waits for another attempt."""
        number = draw(st.integers(1, self.documents))
        job_id = submit(self.store, "again.pdf", b"%%PDF-1.7 %d" % number).job_id
        if job_id not in self.jobs:
            self.jobs.append(job_id)

    def read(self, draw):
        """A worker reads what waits, well or not."""
        task = claim(self.store, "worker", 60)
        if task is None:
            return
        said = {"result": draw(results)} if draw(st.booleans()) else {"result": None, "error": "no page"}
        job = new_job(0, filename=task.filename, document_sha256=task.document_sha256, confidence=0.5, review_flags=[])
        finish(self.store, task, **job | said)

    def correct(self, draw):
        """A batch of one or two corrections anywhere in a result."""
        job_id = draw(st.sampled_from(self.jobs))
        for n in range(draw(st.integers(1, 2))):
            result = self.store.job(job_id).result
            if not result:
                return
            event = draw(corrections(result, n + 1))
            edit = Edit(event.op, event.field_path, event.new_value)
            self.store.correct(job_id, [edit], by=draw(st.sampled_from(REVIEWERS)))

    def undo(self, draw):
        """The last batch is taken back."""
        self.store.undo(draw(st.sampled_from(self.jobs)), by=draw(st.sampled_from(REVIEWERS)))

    def approve(self, draw):
        """A result is approved as it stands."""
        self.store.approve(draw(st.sampled_from(self.jobs)), by=draw(st.sampled_from(REVIEWERS)))

    def read_again(self, draw):
        """A further run on a letter, by a better engine and under another name."""
        known = self.store.job(draw(st.sampled_from(self.jobs)))
        again = new_job(0, filename="again.pdf", document_sha256=known.document_sha256, engine="rapidocr")
        again |= {"result": draw(results), "review_flags": draw(st.sampled_from([[], ["again"]])), "confidence": 0.25}
        self.store.add_job(**again, rerun=True)

    def second_review(self, draw):
        """Somebody reads an approved letter without knowing the answer."""
        submit_second(self.store, draw(st.sampled_from(self.jobs)), [], by="reviewer-c")

    def erase(self, draw):
        """A person asks for a letter to be forgotten."""
        job_id = draw(st.sampled_from(self.jobs))
        erase(self.store, job_id, by="admin", reason="request 7")
        self.jobs.remove(job_id)
        self.erased.add(job_id)

    def step(self, draw):
        """Something happens, and time goes on by nothing, seconds or days."""
        self.clock.now += datetime.timedelta(seconds=draw(st.sampled_from([0, 0, 1, 1, 60, 86_400])))
        deeds = [self.add, self.add, self.read]
        if self.jobs:
            deeds += [self.correct, self.correct, self.correct, self.undo, self.approve, self.approve, self.read_again]
            deeds += [self.second_review, self.erase, self.send_again, self.read]
        try:
            draw(st.sampled_from(deeds))(draw)
        except DataError:
            return  # refused, as it should be: the letter waits, there is nothing to undo, ...

    def close(self):
        """End the story."""
        self.store.close()
