"""The store on both backends under rivals, kills, foreign files and damage; and as a state machine."""

import datetime
import os
import signal
import subprocess
import sys
import threading
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from review_samples import Ticking, corrections, new_job, results
from sqlalchemy import select

from ocr_sprint.core.canonical import decode, sha256_hex
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review import reader
from ocr_sprint.review.chain import verify_chain
from ocr_sprint.review.database import reading, writing
from ocr_sprint.review.edits import ConflictError, Edit
from ocr_sprint.review.jobs import job_id_of
from ocr_sprint.review.ledger import NotFoundError
from ocr_sprint.review.lists import JobFilters
from ocr_sprint.review.replay import Drift, apply_event, prove, replay, reverse, same
from ocr_sprint.review.schema import approvals, archived_results, documents, events, jobs
from ocr_sprint.review.store import open_store
from ocr_sprint.review.trail import job_entries

PERIHAL = "header.perihal"


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def first_output_is_proved(store, job_id):
    job = store.job(job_id)
    rebuilt = reverse(job.result, store.events(job_id))
    return not isinstance(rebuilt, Drift) and prove(rebuilt, job.initial_sha256) is None


def chain_holds(store, job_id):
    with reading(store.engine) as connection:
        return verify_chain(*job_entries(connection, job_id)) is None


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
    monkeypatch.setattr(reader, "PAGE_ROWS", 3)
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


def test_a_damaged_result_is_named(store):
    job_id = store.add_job(**new_job(1))
    with writing(store.engine) as connection:
        connection.execute(jobs.update().values(result="{"))
    with pytest.raises(DataError, match=f"job {job_id}: the stored result is damaged"):
        store.job(job_id)


def test_a_rerun_archives_the_old_result_and_its_approval(store):
    job_id = store.add_job(**new_job(1))
    corrected = store.correct(job_id, [Edit("set", PERIHAL, "a")], by="reviewer-a")
    store.approve(job_id, by="reviewer-a")
    assert store.add_job(**new_job(1, engine="rapidocr"), rerun=True) == job_id
    job = store.job(job_id)
    assert (job.run, job.engine, job.approved, job.reviewed_by, store.events(job_id)) == (
        2,
        "rapidocr",
        False,
        None,
        [],
    )
    assert job.result["header"]["perihal"] is None
    with reading(store.engine) as connection:
        (archived,) = connection.execute(archived_results.select()).all()
        actions = connection.execute(select(approvals.c.action, approvals.c.run, approvals.c.after)).all()
    assert (archived.run, decode(archived.result)) == (1, corrected.result)
    assert actions == [("approve", 1, 1), ("revoke", 1, 1)]
    assert chain_holds(store, job_id)
    # The corrections of the run before can neither be undone nor counted as this one's.
    with pytest.raises(DataError, match="there is no batch"):
        store.undo(job_id, by="reviewer-a", batch=1)
    assert [
        event.n for event in (store.correct(job_id, [Edit("set", PERIHAL, "b")], by="c"), store.events(job_id))[1]
    ] == [2]


def test_a_rerun_that_fails_changes_nothing(store):
    job_id = store.add_job(**new_job(1))
    store.approve(job_id, by="reviewer-a")
    before = store.job(job_id)
    with pytest.raises(DataError, match=r"sprint-001.pdf: read again without success, the result stays: encrypted"):
        store.add_job(**new_job(1, error="encrypted") | {"result": None}, rerun=True)
    assert store.job(job_id) == before


def test_undo_takes_back_one_batch_after_the_other(store):
    job_id = store.add_job(**new_job(1))
    store.correct(job_id, [Edit("set", PERIHAL, "a"), Edit("remove", "personel[1]")], by="reviewer-a")
    store.correct(job_id, [Edit("set", PERIHAL, "b")], by="reviewer-b")
    store.approve(job_id, by="reviewer-b")
    first = store.undo(job_id, by="reviewer-c", reason="not in the letter")
    assert (first.result["header"]["perihal"], first.approved, first.version) == ("a", False, 5)
    second = store.undo(job_id, by="reviewer-c")
    assert second.result == new_job(1)["result"]
    with pytest.raises(DataError, match="there is no batch of corrections to undo"):
        store.undo(job_id, by="reviewer-c")
    again = store.undo(job_id, by="reviewer-c", batch=5)  # the undo of the first batch
    assert again.result["header"]["perihal"] == "a" and len(again.result["personel"]) == 1
    with reading(store.engine) as connection:
        reverts = connection.execute(select(events.c.reverts).order_by(events.c.n)).scalars().all()
    assert reverts == [None, None, None, 3, 2, 1, 6, 5]
    assert first_output_is_proved(store, job_id) and chain_holds(store, job_id)


def test_undo_is_refused_where_later_corrections_build_on_it(store):
    job_id = store.add_job(**new_job(1, {"personel": [{"nrp": "1"}, {"nrp": None}]}))
    store.correct(job_id, [Edit("set", "personel[0].nrp", None)], by="reviewer-a")
    # The same null now stands in the same place, and belongs to somebody else.
    moved = store.correct(job_id, [Edit("remove", "personel[0]")], by="reviewer-b")
    with pytest.raises(ConflictError, match=r"personel\[0\].nrp cannot be taken back") as caught:
        store.undo(job_id, by="reviewer-a", batch=1)
    assert (caught.value.version, caught.value.found) == (3, None)
    with pytest.raises(ConflictError, match="is at version 3, not 2"):
        store.undo(job_id, by="reviewer-a", expected_version=2)
    assert store.job(job_id) == moved


def test_an_undone_result_must_be_one_too(url):
    def validate(result):
        if result["header"]["perihal"] is None:
            raise DataError("header.perihal: must not be empty any more")

    with open_store(url) as store:
        job_id = store.add_job(**new_job(1))
        store.correct(job_id, [Edit("set", PERIHAL, "a")], by="reviewer-a")
    with open_store(url, validate=validate) as store:
        with pytest.raises(DataError, match="must not be empty"):
            store.undo(job_id, by="reviewer-a")
        assert store.job(job_id).version == 2


def test_text_that_one_backend_cannot_hold_is_refused_by_both(store):
    for wrong in ({"filename": "a\0.pdf"}, {"ocr_text": "\0"}, {"engine": "\0"}, {"result": None, "error": "\0"}):
        with pytest.raises(DataError, match=r"U\+0000"):
            store.add_job(**new_job(1, **{"error": None} | wrong) | wrong)
    job_id = store.add_job(**new_job(1, {"header": {"perihal": None, "satuan": "\0"}, "\0": 1}))
    assert store.job(job_id).satuan is None
    store.correct(job_id, [Edit("set", '["\\u0000"]', 2)], by="reviewer-a")
    with pytest.raises(DataError, match=r"U\+0000"):
        store.correct(job_id, [Edit("set", PERIHAL, "x", reason="\0")], by="reviewer-a")
    assert [event.new_value for event in store.events(job_id)] == [2]
    assert first_output_is_proved(store, job_id) and chain_holds(store, job_id)


@pytest.mark.parametrize("value", ["a\0", "\x1b[2J", {"perihal": "\x07"}, ["a", {"\x1f": 1}]], ids=range(4))
def test_a_control_character_that_no_letter_can_hold_is_refused(store, value):
    job_id = store.add_job(**new_job(1, {"header": {"perihal": "\x1b of the pipeline"}}))
    for change in (
        lambda: store.correct(job_id, [Edit("set", "header", "x"), Edit("set", "header", value)], by="reviewer-a"),
        lambda: store.correct(job_id, [Edit("add", "header.tahun", value)], by="reviewer-a"),
    ):
        with pytest.raises(DataError, match=r"^header(\.tahun)?: a value holds the control character U\+00"):
            change()
    assert (store.job(job_id).version, store.events(job_id)) == (1, [])
    # What the pipeline read there can be replaced, and taken back; tab and line break are part of letters.
    store.correct(job_id, [Edit("set", PERIHAL, "a\tb\n")], by="reviewer-a")
    assert store.undo(job_id, by="reviewer-a").result == {"header": {"perihal": "\x1b of the pipeline"}}


def test_places_in_the_feed_go_up_with_every_change(store):
    def place(job_id):
        with reading(store.engine) as connection:
            query = select(jobs.c.change_xid, jobs.c.change_seq).where(jobs.c.job_id == job_id)
            return tuple(connection.execute(query).one())

    first, second = (store.add_job(**new_job(number)) for number in (1, 2))
    seen = [place(first), place(second)]
    for job_id, change in [
        (first, lambda: store.correct(first, [Edit("set", PERIHAL, "a")], by="reviewer-a")),
        (second, lambda: store.approve(second, by="reviewer-a")),
        (first, lambda: store.undo(first, by="reviewer-a")),
        (second, lambda: store.add_job(**new_job(2), rerun=True)),
    ]:
        change()
        seen.append(place(job_id))
    assert seen == sorted(set(seen))
    # What changes nothing has no place of its own.
    store.add_job(**new_job(1))
    store.correct(first, [Edit("set", PERIHAL, None)], by="reviewer-a")
    assert [place(first), place(second)] == seen[-2:]


def test_the_file_is_kept_with_its_job(store):
    content = b"%PDF-1.7 a letter"
    job = new_job(1, document_sha256=sha256_hex(content))
    store.add_job(**job, document=content)
    store.add_job(**job, document=content)
    with pytest.raises(DataError, match="has another hash"):
        store.add_job(**new_job(2), document=content)
    with reading(store.engine) as connection:
        assert connection.execute(documents.select()).all() == [(sha256_hex(content), "application/pdf", content)]
    assert [known.job_id for known in store.jobs()] == [job_id_of(sha256_hex(content))]


@pytest.mark.parametrize("order", ["export", "queue", "latest"])
def test_lists_are_complete_across_pages(store, order):
    random = Random(3)
    for number in range(23):
        failed = {"result": None, "error": "encrypted", "confidence": None} if number % 7 == 0 else {}
        flags = ["nrp_format", "llm_fallback", "date"][: random.randrange(4)]
        satuan = random.choice(["Polres Garut", "Polda Jabar", "Ändere"])
        job = new_job(
            number, {"header": {"satuan": satuan}}, review_flags=flags, confidence=random.choice([0.5, 0.7, 1])
        )
        job_id = store.add_job(**job | failed)
        if number % 5 == 1 and not failed:
            store.approve(job_id, by="reviewer-a")
    listed, after = [], None
    while after is not None or not listed:
        page = store.page(JobFilters(order=order), after, limit=4)
        assert len(page.jobs) <= 4
        listed += page.jobs
        after = page.after

    def urgency(job):
        confidence = -1 if job.confidence is None else job.confidence
        return (job.approved, job.status != "done", -len(job.review_flags), confidence, job.created_at, job.job_id)

    def age(job):
        return (job.created_at, job.job_id)

    def lateness(job):
        return (job.changed_at, job.created_at, job.job_id)

    key = {"export": age, "queue": urgency, "latest": lateness}[order]
    assert listed == sorted(listed, key=key, reverse=order == "latest")
    assert sorted(job.job_id for job in listed) == sorted(job.job_id for job in store.jobs())
    for filters, chosen in [
        (JobFilters(status="failed"), lambda job: job.status == "failed"),
        (JobFilters(approved=True, satuan="Polda Jabar"), lambda job: job.approved and job.satuan == "Polda Jabar"),
        (JobFilters(flag="date"), lambda job: "date" in job.review_flags),
        (JobFilters(flag="DATE"), lambda _: False),
        (JobFilters(flag="form"), lambda _: False),
    ]:
        assert store.page(filters).jobs == [job for job in sorted(listed, key=age) if chosen(job)], filters


@pytest.mark.parametrize("after", ["", "x", "WyJhIl0=", "W10=", "é", "WzEsIDJd", "////"])
def test_a_place_that_no_page_gave_is_refused(store, after):
    with pytest.raises(UsageError, match="is no place in this list"):
        store.page(after=after)


@pytest.mark.parametrize("at", ["revoke", "_approve", "existing_job"])
def test_an_approval_with_edits_that_fails_on_its_way_leaves_nothing(store, at, monkeypatch):
    """Whatever step of it fails: between the correction and the approval, or after both."""
    job_id = store.add_job(**new_job(1))
    store.approve(job_id, by="reviewer-a")
    before, trail = store.job(job_id), store.trail(job_id)

    def fails(*_, **__):
        raise RuntimeError("the process ends here")

    edits = [Edit("set", PERIHAL, "Penyelidikan")]
    with monkeypatch.context() as patched:
        patched.setattr(f"ocr_sprint.review.store.{at}", fails)
        with pytest.raises(RuntimeError):
            store.approve(job_id, edits=edits, by="reviewer-a", expected_version=before.version)
    assert (store.job(job_id), store.trail(job_id)) == (before, trail)
    with pytest.raises(ConflictError):
        store.approve(job_id, edits=edits, by="reviewer-a", expected_version=before.version - 1)
    with pytest.raises(ConflictError):
        store.approve(job_id, edits=[*edits, Edit("set", PERIHAL, "x", expected="y")], by="reviewer-a")
    assert (store.job(job_id), store.trail(job_id)) == (before, trail)
    after = store.approve(job_id, edits=edits, by="reviewer-a", reason="keliru", expected_version=before.version)
    assert (after.approved, after.version, after.result["header"]["perihal"]) == (
        True,
        before.version + 1,
        "Penyelidikan",
    )
    kinds = [(entry.kind, entry.what.partition(" ")[0]) for entry in store.trail(job_id)[len(trail) :]]
    assert kinds == [("events", "header.perihal:"), ("approvals", "the"), ("approvals", "approved")]
    assert chain_holds(store, job_id)


class Reviewing(RuleBasedStateMachine):
    """Any mix of correcting, approving, coming too late and failing, against a model in memory."""

    def __init__(self, url):
        super().__init__()
        self.store = open_store(url, clock=Ticking())

    def teardown(self):
        self.store.close()

    @initialize(result=results)
    def ingest(self, result):
        self.current = self.initial = result
        self.approved, self.version, self.events, self.past = False, 1, 0, []
        self.job_id = self.store.add_job(**new_job(1) | {"result": result})

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def correct(self, data):
        event = data.draw(corrections(self.current, 1))
        edit = Edit(event.op, event.field_path, event.new_value, expected=event.old_value)
        self.store.correct(self.job_id, [edit], by="reviewer-a", expected_version=self.version)
        if event.op != "set" or not same(event.old_value, event.new_value):
            self.past.append(self.current)
            self.current = apply_event(self.current, event)
            self.approved, self.version, self.events = False, self.version + 1, self.events + 1

    @precondition(lambda self: self.past)
    @rule()
    def undo(self):
        self.store.undo(self.job_id, by="reviewer-b", expected_version=self.version)
        self.current = self.past.pop()
        self.approved, self.version, self.events = False, self.version + 1, self.events + 1

    @precondition(lambda self: not self.past)
    @rule()
    def undo_nothing(self):
        with pytest.raises(DataError, match="there is no batch"):
            self.store.undo(self.job_id, by="reviewer-b")

    @rule(result=results)
    def read_again(self, result):
        assert self.store.add_job(**new_job(1) | {"result": result}, rerun=True) == self.job_id
        self.current = self.initial = result
        self.approved, self.version, self.events, self.past = False, self.version + 1, 0, []

    @rule()
    def approve(self):
        self.store.approve(self.job_id, by="reviewer-a", expected_version=self.version)
        self.version += not self.approved
        self.approved = True

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def correct_and_approve(self, data):
        event = data.draw(corrections(self.current, 1))
        edit = Edit(event.op, event.field_path, event.new_value, expected=event.old_value)
        changes = event.op != "set" or not same(event.old_value, event.new_value)
        job = self.store.approve(self.job_id, edits=[edit], by="reviewer-a", expected_version=self.version)
        assert job.approved
        if changes:
            self.past.append(self.current)
            self.current, self.events = apply_event(self.current, event), self.events + 1
        self.version += changes or not self.approved
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
        assert chain_holds(self.store, self.job_id)


def test_any_mix_of_all_this(new_url, backend):
    patient = settings(max_examples=20, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(lambda: Reviewing(new_url(backend)), settings=patient)
