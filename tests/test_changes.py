"""The feed of changes: nothing is lost, whoever overtakes whom, and what is folded is the corpus."""

import json
import os
import threading
import time
from contextlib import closing

import pytest
from export_samples import Stories, by_hand
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from review_samples import Ticking, new_job
from sqlalchemy import select

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review.changes import changes, restart_feed
from ocr_sprint.review.database import writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.erasure import erase
from ocr_sprint.review.export import export_lines
from ocr_sprint.review.filters import ALL, APPROVED, Filters
from ocr_sprint.review.ledger import locked
from ocr_sprint.review.schema import jobs
from ocr_sprint.review.store import open_store

PERIHAL = "header.perihal"
FILTERS = [APPROVED, ALL, Filters(False, has_corrections=True), Filters(has_corrections=False)]


def corpus(store, filters):
    with closing(export_lines(store, filters)) as lines:
        return {json.loads(line)["job_id"]: line for line in lines}


class Follower:
    """Keeps its own copy of a corpus from nothing but the feed."""

    def __init__(self, store, filters=APPROVED):
        self.store, self.filters, self.cursor, self.copy = store, filters, None, {}

    def ask(self, limit=1000):
        found = changes(self.store, self.filters, self.cursor, limit)
        for job_id, line in found.changes:
            self.copy.pop(job_id, None)
            if line is not None:
                self.copy[job_id] = line
        self.cursor = found.cursor
        return found

    def catch_up(self, limit=1000):
        while self.ask(limit).more:
            pass


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


@pytest.fixture
def new_story(new_url, backend):
    return Stories(new_url, backend)


@settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=int(os.environ.get("OCR_SPRINT_STORIES", "15")),
)
@given(st.data())
def test_increments_fold_to_the_full_export(new_story, data):
    with closing(new_story()) as story:
        followers = [Follower(story.store, filters) for filters in FILTERS]
        for _ in range(data.draw(st.integers(3, 14))):
            story.step(data.draw)
            follower = data.draw(st.sampled_from(followers))
            follower.catch_up(data.draw(st.sampled_from([1, 2, 1000])))
            assert follower.copy == corpus(story.store, follower.filters)
        for follower in followers:
            follower.catch_up()
            assert follower.copy == corpus(story.store, follower.filters)
            assert follower.ask().changes == []


def test_every_writer_at_once_and_nothing_is_lost(url):
    """Three writers change the same twelve letters while two followers read; in the end all copies are the corpus."""
    with open_store(url) as store:
        letters = [store.add_job(**new_job(number)) for number in range(12)]

        def write(name):
            with open_store(url, create=False) as own:
                for turn in range(15):
                    letter = letters[(turn * 5 + len(name)) % len(letters)]
                    own.correct(letter, [Edit("set", PERIHAL, f"{name} {turn}")], by=name)
                    if turn % 2:
                        own.approve(letter, by=name)
                    if turn % 5 == 0:
                        own.add_job(**new_job(1000 * len(name) + turn))

        writers = [threading.Thread(target=write, args=("w" * n,)) for n in (1, 2, 3)]
        followers = [Follower(store, APPROVED), Follower(store, ALL)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            for follower in followers:
                follower.ask(limit=7)
        for writer in writers:
            writer.join()
        for follower in followers:
            follower.catch_up()
            assert follower.copy == corpus(store, follower.filters)
        assert len(followers[1].copy) == 12 + 9


def test_a_writer_who_commits_late_is_not_overlooked(new_url):
    """A begins first, B commits first: a feed by sequence alone would show B and skip A for ever."""
    with open_store(new_url("postgresql"), clock=Ticking()) as store:
        a, b = (store.add_job(**new_job(number)) for number in range(2))
        follower = Follower(store, ALL)
        follower.catch_up()
        with writing(store.engine) as slow:
            change = locked(slow, a, "2026-01-01T00:00:00Z")
            change.save({"filename": "a.pdf"})  # has its place in the feed, and is not committed
            store.correct(b, [Edit("set", PERIHAL, "Patroli")], by="reviewer-b")
            before = follower.ask()
            assert before.changes == []  # B waits for A, which could come before it
        told = follower.ask()
        assert {job_id for job_id, _ in told.changes} == {a, b}
        assert follower.copy == corpus(store, ALL)


def test_a_sequence_alone_would_lose_it(new_url):
    """The same, with the cursor that everybody would write first: the test above can fail."""
    with open_store(new_url("postgresql"), clock=Ticking()) as store:
        a, b = (store.add_job(**new_job(number)) for number in range(2))

        def after(seq):
            with store.engine.connect() as connection:
                query = select(jobs.c.job_id, jobs.c.change_seq).where(jobs.c.change_seq > seq)
                return dict(connection.execute(query).all())

        seen = max(after(0).values())
        with writing(store.engine) as slow:
            locked(slow, a, "2026-01-01T00:00:00Z").save({"filename": "a.pdf"})
            store.correct(b, [Edit("set", PERIHAL, "Patroli")], by="reviewer-b")
            told = after(seen)
            seen = max(told.values())
        assert list(told) == [b]
        assert after(seen) == {}  # A was committed, and is never told


def test_a_letter_that_was_erased_is_told_and_may_come_again(store):
    first, second = (store.add_job(**new_job(number)) for number in range(2))
    follower = Follower(store, ALL)
    follower.catch_up()
    erase(store, first, by="admin", reason="the person asked")
    assert [(job_id, line) for job_id, line in follower.ask().changes] == [(first, None)]
    assert list(follower.copy) == [second]
    assert store.add_job(**new_job(0)) == first
    late = Follower(store, ALL)
    for each in (follower, late):
        each.catch_up(limit=1)
        assert each.copy == corpus(store, ALL)
    assert first in late.copy


def test_a_feed_in_parts_is_the_feed(store):
    for number in range(7):
        store.add_job(**new_job(number))
    whole = changes(store, ALL).changes
    assert len(whole) == 7
    for limit in (1, 2, 3, 7):
        follower = Follower(store, ALL)
        parts = []
        while True:
            found = follower.ask(limit)
            parts += found.changes
            assert len(found.changes) <= limit
            if not found.more:
                break
        assert parts == whole


def test_wrong_cursors_are_refused(store, new_url, backend):
    store.add_job(**new_job(1))
    cursor = changes(store, ALL).cursor
    foreign = pytest.raises(UsageError, match="of another store or of other filters")
    with open_store(new_url(backend)) as other, foreign:
        changes(other, ALL, cursor)
    with pytest.raises(UsageError, match="of another store or of other filters"):
        changes(store, APPROVED, cursor)
    for wrong in (cursor[:-3], cursor + "A", "%" + cursor, cursor[::-1], "", "0", "é", "A" * 100_000):
        with pytest.raises(UsageError, match="begin without a cursor"):
            changes(store, ALL, wrong)
    restart_feed(store)
    with pytest.raises(UsageError, match="of another store"):
        changes(store, ALL, cursor)
    assert len(changes(store, ALL).changes) == 1


def test_any_change_of_a_cursor_is_refused_or_harmless(store):
    """Whoever guesses at a cursor gets an error or an earlier place, never a crash."""
    store.add_job(**new_job(1))
    cursor = changes(store, ALL).cursor
    for at in range(len(cursor)):
        for letter in "Az09-_=":
            try:
                found = changes(store, ALL, cursor[:at] + letter + cursor[at + 1 :])
            except UsageError:
                continue
            assert len(found.changes) <= 1


def test_a_store_behind_its_followers_says_so(store):
    store.add_job(**new_job(1))
    cursor = changes(store, ALL).cursor
    by_hand(store, "UPDATE jobs SET change_seq = 0, change_xid = 0")
    with pytest.raises(UsageError, match="restored from a backup"):
        changes(store, ALL, cursor)


def test_a_store_that_was_moved_to_another_server_goes_on_when_it_is_opened(new_url):
    url = new_url("postgresql")
    with open_store(url) as store:
        job_id = store.add_job(**new_job(1))
        by_hand(store, "UPDATE jobs SET change_xid = 9000000000000")
        with pytest.raises(DataError, match="was moved to another server"):
            changes(store, ALL)
    with open_store(url) as store:
        assert [change.job_id for change in changes(store, ALL).changes] == [job_id]


def test_a_change_is_told_soon(store):
    """Nothing holds a feed back but transactions that are running."""
    follower = Follower(store, ALL)
    for number in range(5):
        job_id = store.add_job(**new_job(number))
        until = time.monotonic() + 10
        while job_id not in follower.copy and time.monotonic() < until:
            follower.ask()
        assert job_id in follower.copy
