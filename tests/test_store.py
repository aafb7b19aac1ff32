"""The store under rivals, kills, foreign files and damage; and as a state machine."""

import datetime
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from review_samples import Ticking, changes, new_job, results

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review import store as store_module
from ocr_sprint.review.edits import ConflictError, Edit
from ocr_sprint.review.replay import Drift, apply_event, prove, replay, reverse, same
from ocr_sprint.review.store import NotFoundError, open_store

PERIHAL = "header.perihal"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def first_output_is_proved(store, job_id):
    job = store.job(job_id)
    rebuilt = reverse(job.result, store.events(job_id))
    return not isinstance(rebuilt, Drift) and prove(rebuilt, job.initial_sha256) is None


def test_nothing_is_written_by_a_batch_that_fails(store):
    job_id = store.add_job(**new_job(1))
    before = store.job(job_id)
    for batch in [
        [Edit("set", PERIHAL, "x"), Edit("set", "header.nama", "y")],
        [Edit("set", PERIHAL, "x"), Edit("set", "personel[0].nrp", "y", expected="z")],
        [Edit("set", PERIHAL, "x"), Edit("add", "catatan", "y")],
        [Edit("set", PERIHAL, float("nan"))],
    ]:
        with pytest.raises(DataError):
            store.correct(job_id, batch, by="reviewer-a")
    assert store.job(job_id) == before
    assert store.events(job_id) == []


def test_a_batch_that_makes_no_result_is_refused(url):
    def validate(result):
        if not isinstance(result["personel"], list):
            raise DataError("personel: must be a list")

    with open_store(url, validate=validate) as store:
        job_id = store.add_job(**new_job(1))
        with pytest.raises(DataError, match="must be a list"):
            store.correct(job_id, [Edit("set", "personel", None)], by="reviewer-a")
        with pytest.raises(DataError, match="must be a list"):
            store.add_job(**new_job(2, {"personel": "BUDI"}))
        # What a batch passes through on its way is nobody's business.
        passing = [Edit("set", "personel", None), Edit("set", "personel", [])]
        assert store.correct(job_id, passing, by="reviewer-a").result["personel"] == []


def test_times_never_go_back(url):
    clock = Ticking()
    with open_store(url, clock=clock) as store:
        job_id = store.add_job(**new_job(1))
        clock.now += datetime.timedelta(days=1)
        late = store.correct(job_id, [Edit("set", PERIHAL, "a")], by="reviewer-a")
        clock.now -= datetime.timedelta(days=7)
        assert store.correct(job_id, [Edit("set", PERIHAL, "b")], by="reviewer-a").changed_at == late.changed_at
        assert store.approve(job_id, by="reviewer-a").reviewed_at == late.changed_at
        assert [event.corrected_at for event in store.events(job_id)] == [late.changed_at] * 2


def test_a_clock_without_a_zone_is_refused(url):
    with open_store(url, clock=lambda: datetime.datetime(2025, 5, 28)) as store:
        with pytest.raises(UsageError, match="no time zone"):
            store.add_job(**new_job(1))
        assert list(store.jobs()) == []


def test_a_failed_document_gets_another_run_and_a_good_one_does_not(store):
    failed = new_job(1, error="encrypted") | {"result": None}
    job_id = store.add_job(**failed)
    assert store.add_job(**failed) == job_id
    assert store.add_job(**new_job(1, engine="rapidocr")) == job_id
    job = store.job(job_id)
    assert (job.run, job.version, job.engine, job.error) == (3, 3, "rapidocr", None)
    assert store.add_job(**new_job(1, engine="tesseract")) == job_id
    assert store.job(job_id) == job
    store.correct(job_id, [Edit("set", PERIHAL, "a")], by="reviewer-a")
    assert [event.run for event in store.events(job_id)] == [3]
    assert first_output_is_proved(store, job_id)


def test_stale_versions_are_conflicts(store):
    job_id = store.add_job(**new_job(1))
    store.correct(job_id, [Edit("set", PERIHAL, "a")], by="reviewer-a", expected_version=1)
    for call in (
        lambda: store.correct(job_id, [Edit("set", PERIHAL, "b")], by="reviewer-b", expected_version=1),
        lambda: store.approve(job_id, by="reviewer-b", expected_version=1),
    ):
        with pytest.raises(ConflictError) as caught:
            call()
        assert caught.value.version == 2
    with pytest.raises(ConflictError) as caught:
        store.correct(job_id, [Edit("set", PERIHAL, "b", expected=None)], by="reviewer-b")
    assert (caught.value.field_path, caught.value.found, caught.value.version) == (PERIHAL, "a", 2)


def test_unknown_jobs(store):
    assert store.find_document("0" * 64) is None
    for call in (store.job, store.events, lambda job_id: store.approve(job_id, by="reviewer-a")):
        with pytest.raises(NotFoundError, match="there is no job nobody"):
            call("nobody")


def test_listings_are_complete_across_pages(store, monkeypatch):
    monkeypatch.setattr(store_module, "PAGE_ROWS", 3)
    expected = sorted(store.add_job(**new_job(number)) for number in range(10))
    assert sorted(job.job_id for job in store.jobs()) == expected
    listed = list(store.jobs())
    assert [(job.created_at, job.job_id) for job in listed] == sorted((job.created_at, job.job_id) for job in listed)
    store.approve(expected[0], by="reviewer-a")
    assert [job.job_id for job in store.jobs(approved=True)] == expected[:1]
    assert len(list(store.jobs(approved=False))) == 9
    assert len(list(store.jobs(limit=4))) == 4


def test_two_threads_lose_nothing(url):
    with open_store(url) as store:
        job_id = store.add_job(**new_job(1))

        def correct(name):
            for number in range(25):
                store.correct(job_id, [Edit("set", PERIHAL, f"{name} {number}")], by=name)

        threads = [threading.Thread(target=correct, args=(name,)) for name in ("reviewer-a", "reviewer-b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = store.events(job_id)
        assert [event.n for event in events] == list(range(1, 51))
        assert store.job(job_id).version == 51
        assert first_output_is_proved(store, job_id)


WRITER = """
import sys
from review_samples import new_job
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.store import open_store
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_store(url) as store:
    job_id = store.add_job(**new_job(1))
    for number in range(count):
        job = store.correct(job_id, [Edit("set", "header.perihal", f"{name} {number}")], by=name)
        print(name, number, flush=True)
"""


def writer(url, name, count):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", WRITER, url, name, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_make_and_share_a_store(url):
    writers = [writer(url, f"reviewer-{letter}", 10) for letter in "abc"]
    for process in writers:
        process.communicate()
    assert [process.returncode for process in writers] == [0, 0, 0]
    with open_store(url, create=False) as store:
        (job,) = store.jobs()
        assert [event.n for event in store.events(job.job_id)] == list(range(1, 31))
        assert first_output_is_proved(store, job.job_id)


def test_a_kill_loses_nothing_that_was_acknowledged(url):
    acknowledged = []
    for name in ("reviewer-a", "reviewer-b", "reviewer-c"):
        with writer(url, name, 10_000) as process:
            for _ in range(17):
                acknowledged.append(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            acknowledged += process.stdout.read().split("\n")[:-1]
        assert process.returncode == -signal.SIGKILL
    with open_store(url, create=False) as store:
        (job,) = store.jobs()
        events = store.events(job.job_id)
        written = [event.new_value for event in events]
        assert [value for value in written if value in set(acknowledged)] == acknowledged
        assert len(written) - len(acknowledged) <= 3  # written, and killed before it could be said
        assert job.result["header"]["perihal"] == written[-1]
        assert job.version == len(events) + 1
        assert first_output_is_proved(store, job.job_id)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://reviewer@db.example/corpus", "is no SQLite file: write sqlite:///FILE"),
        ("corpus.db", "'corpus.db' is no store: write sqlite:///FILE"),
        ("sqlite:///:memory:", "is no SQLite file"),
        ("sqlite:///no/such/folder/store.db", "there is no folder no/such/folder"),
    ],
)
def test_urls_that_name_no_store(url, message):
    with pytest.raises(UsageError, match=message):
        open_store(url)


def test_a_password_is_not_repeated():
    with pytest.raises(UsageError) as caught:
        open_store("postgresql://reviewer:rahasia@db.example/corpus")
    assert "rahasia" not in str(caught.value)


def test_files_of_other_programs_stay_untouched(tmp_path):
    foreign = tmp_path / "photos.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    before = foreign.read_bytes()
    with pytest.raises(DataError, match="is no store of this version"):
        open_store(f"sqlite:///{foreign}")
    letter = tmp_path / "letter.pdf"
    letter.write_bytes(b"%PDF-1.7 " + bytes(4096))
    with pytest.raises(DataError, match="file is not a database"):
        open_store(f"sqlite:///{letter}")
    assert foreign.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.pdf", "photos.db"]


def test_readers_make_no_file(tmp_path):
    with pytest.raises(UsageError, match="there is no store"):
        open_store(f"sqlite:///{tmp_path}/stroe.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_the_store(url, tmp_path, monkeypatch):
    monkeypatch.setenv("OCR_SPRINT_STORE", url)
    with open_store() as store:
        store.add_job(**new_job(1))
    assert (tmp_path / "store.db").exists()
    monkeypatch.delenv("OCR_SPRINT_STORE")
    monkeypatch.chdir(tmp_path)
    with open_store() as store:
        assert list(store.jobs()) == []
    assert (tmp_path / "ocr_sprint.db").exists()


def test_writes_are_durable_and_references_enforced(store):
    with store.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_a_damaged_result_is_named(store, tmp_path):
    job_id = store.add_job(**new_job(1))
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("UPDATE jobs SET result = '{'")
    connection.close()
    with pytest.raises(DataError, match=f"job {job_id}: the stored result is damaged"):
        store.job(job_id)


class Reviewing(RuleBasedStateMachine):
    """Any mix of correcting, approving, coming too late and failing, against a model in memory."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(f"sqlite:///{self.folder.name}/store.db", clock=Ticking())

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @initialize(result=results)
    def ingest(self, result):
        self.current = self.initial = result
        self.approved, self.version, self.events = False, 1, 0
        self.job_id = self.store.add_job(**new_job(1) | {"result": result})

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def correct(self, data):
        event = data.draw(changes(self.current, 1))
        edit = Edit(event.op, event.field_path, event.new_value, expected=event.old_value)
        self.store.correct(self.job_id, [edit], by="reviewer-a", expected_version=self.version)
        if event.op != "set" or not same(event.old_value, event.new_value):
            self.current = apply_event(self.current, event)
            self.approved, self.version, self.events = False, self.version + 1, self.events + 1

    @rule()
    def approve(self):
        self.store.approve(self.job_id, by="reviewer-a", expected_version=self.version)
        self.version += not self.approved
        self.approved = True

    @rule()
    def come_too_late(self):
        with pytest.raises(ConflictError):
            self.store.approve(self.job_id, by="reviewer-b", expected_version=self.version - 1)

    @rule()
    def fail(self):
        with pytest.raises(DataError):
            self.store.correct(self.job_id, [Edit("set", "no such field", 1)], by="reviewer-b")

    @rule()
    def ingest_again(self):
        assert self.store.add_job(**new_job(1)) == self.job_id

    @invariant()
    def the_store_is_the_model(self):
        if not hasattr(self, "job_id"):
            return
        job, events = self.store.job(self.job_id), self.store.events(self.job_id)
        assert (job.approved, job.version, len(events)) == (self.approved, self.version, self.events)
        assert same(job.result, self.current)
        assert same(reverse(job.result, events), self.initial)
        assert same(replay(self.initial, events), self.current)
        assert first_output_is_proved(self.store, self.job_id)


TestReviewing = Reviewing.TestCase
TestReviewing.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
