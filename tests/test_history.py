"""The corpus of any earlier moment, from the store of today: the very bytes that were exported then."""

import datetime
import json
import os
from contextlib import closing

import pytest
from export_samples import Clock, Stories, by_hand
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from review_samples import Ticking, new_job

from ocr_sprint.review.edits import Edit
from ocr_sprint.review.export import export_lines, write_corpus
from ocr_sprint.review.filters import ALL, APPROVED, Filters
from ocr_sprint.review.manifest import differences, manifest_path, read_manifest
from ocr_sprint.review.queue import claim, finish, submit
from ocr_sprint.review.store import open_store
from ocr_sprint.review.verify_store import verify_store
from ocr_sprint.tools.export_ground_truth import main

KINDS = (
    APPROVED,
    APPROVED,
    Filters(has_corrections=True, approved_only=False),
    Filters(has_corrections=False),
    Filters(limit=1),
)


def taken(store, filters, as_of=None):
    with closing(export_lines(store, filters, as_of=as_of)) as lines:
        return b"".join(lines)


# A story that fails is printed step by step; making it shorter would take longer than reading it.
STORIES = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def new_story(new_url, backend):
    return Stories(new_url, backend)


@settings(STORIES, max_examples=int(os.environ.get("OCR_SPRINT_STORIES", "15")))
@given(st.data())
def test_an_export_as_of_a_moment_is_the_export_that_was_taken_then(new_story, data):
    with closing(new_story()) as story:
        kept = {}
        for _ in range(data.draw(st.integers(3, 14))):
            story.step(data.draw)
            bounds = sorted(data.draw(st.lists(st.sampled_from([*kept, story.clock.now]), min_size=2, max_size=2)))
            periods = [Filters(False, *bounds), Filters(since=bounds[0]), Filters(until=bounds[1])]
            asked = [ALL, data.draw(st.sampled_from([*KINDS, *periods]))]
            kept[story.clock.now] = [(filters, taken(story.store, filters)) for filters in asked]
        for moment, exports in kept.items():
            for filters, lines in exports:
                if filters.limit is None or not story.erased:
                    left = (line for line in lines.splitlines(True) if json.loads(line)["job_id"] not in story.erased)
                    assert taken(story.store, filters, as_of=moment) == b"".join(left), (moment, filters)
        before = story.clock.now - datetime.timedelta(days=365)
        assert taken(story.store, ALL, as_of=before) == b""
        assert b"replay_drift" not in taken(story.store, ALL)
        assert list(verify_store(story.store)) == []


PERIHAL = "header.perihal"


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def moment(job):
    return datetime.datetime.fromisoformat(job.changed_at)


def test_the_command_exports_the_past(store, url, tmp_path, capfdbinary):
    job_id = store.add_job(**new_job(1))
    store.correct(job_id, [Edit("set", PERIHAL, "Patroli")], by="reviewer-a")
    then = store.approve(job_id, by="reviewer-a")
    june = write_corpus(store, tmp_path / "june.jsonl")
    store.correct(job_id, [Edit("set", PERIHAL, "Razia")], by="reviewer-b")
    store.add_job(**new_job(1, {"header": {"perihal": "Patroli malam"}}), rerun=True)
    assert taken(store, APPROVED) == b""
    assert main(["--store", url, "--as-of", then.changed_at]) == 0
    assert capfdbinary.readouterr().out == (tmp_path / "june.jsonl").read_bytes()
    again = tmp_path / "again.jsonl"
    assert main(["--store", url, "--as-of", then.changed_at, "--out", str(again)]) == 0
    assert again.read_bytes() == (tmp_path / "june.jsonl").read_bytes()
    papers = read_manifest(manifest_path(again))
    assert (papers.sha256, papers.as_of) == (june.sha256, then.changed_at)
    assert papers.heads_sha256 is None  # the entries of that day are no part of a later corpus
    assert list(differences(manifest_path(again), manifest_path(tmp_path / "june.jsonl"))) == []
    assert main(["--store", url, "--as-of", "yesterday"]) == 2


def test_a_second_belongs_to_its_corpus_whole(url):
    """Changes are stamped in whole seconds, so a corpus as of a second holds all of them."""
    at = datetime.datetime(2025, 5, 28, 8, tzinfo=datetime.UTC)
    with open_store(url, clock=lambda: at) as store:
        job_id = store.add_job(**new_job(1))
        store.correct(job_id, [Edit("set", PERIHAL, "Patroli")], by="reviewer-a")
        store.approve(job_id, by="reviewer-a")
        for fraction in (0, 999_999):
            assert taken(store, APPROVED, at.replace(microsecond=fraction)) == taken(store, APPROVED)
        assert taken(store, ALL, at - datetime.timedelta(microseconds=1)) == b""


@pytest.mark.parametrize(
    ("damage", "then"),
    [
        ("UPDATE jobs SET result = replace(result, 'Razia', 'Patroli siang')", None),
        ("UPDATE jobs SET result = substr(result, 2)", None),
        ("UPDATE events SET new_value = '\"x\"' WHERE n = 2", None),
        ("UPDATE events SET old_value = '\"x\"' WHERE n = 1", {"header": {"perihal": "Patroli"}}),
    ],
)
def test_a_past_that_cannot_be_known_is_flagged(store, damage, then):
    """The result of another day is never shown in its place."""
    job_id = store.add_job(**new_job(1, {"header": {"perihal": None}}))
    first = store.correct(job_id, [Edit("set", PERIHAL, "Patroli")], by="reviewer-a")
    store.correct(job_id, [Edit("set", PERIHAL, "Razia")], by="reviewer-a")
    by_hand(store, damage)
    line = json.loads(taken(store, ALL, moment(first)))
    assert (line["initial_result"], line["final_result"]) == (None, then)
    assert line["review_flags"] == ["llm_fallback", "replay_drift"]


def test_an_archived_result_that_was_damaged_is_flagged(store):
    job_id = store.add_job(**new_job(1, {"header": {"perihal": None}}))
    first = store.correct(job_id, [Edit("set", PERIHAL, "Patroli")], by="reviewer-a")
    before = taken(store, ALL)
    store.add_job(**new_job(1, {"header": {"perihal": "Razia"}}), rerun=True)
    assert taken(store, ALL, moment(first)) == before
    by_hand(store, "UPDATE archived_results SET result = replace(result, 'Patroli', 'x')")
    assert json.loads(taken(store, ALL, moment(first)))["review_flags"] == ["llm_fallback", "replay_drift"]
    assert b"replay_drift" not in taken(store, ALL)


def test_a_removed_key_comes_back_in_its_place(store):
    """A reader of bytes sees the order of keys, and so does the hash of a corpus."""
    result = {"a": {"x": 1, "y": 2, "z": 3}, "b": []}
    job_id = store.add_job(**new_job(1, result))
    first = store.job(job_id)
    before = taken(store, ALL)
    for number, key in enumerate("xyz"):
        changed = store.correct(job_id, [Edit("remove", f"a.{key}"), Edit("add", f"a.n{number}", key)], by="reviewer-a")
    store.undo(job_id, by="reviewer-a")
    store.correct(job_id, [Edit("add", "a.y", 2), Edit("set", "b", [1])], by="reviewer-a")
    assert taken(store, ALL, moment(first)) == before
    assert json.loads(taken(store, ALL, moment(changed)))["final_result"]["a"] == {"n0": "x", "n1": "y", "n2": "z"}
    (line,) = taken(store, ALL).splitlines()
    assert b'"initial_result":{"a":{"x":1,"y":2,"z":3},"b":[]}' in line


def test_a_letter_that_waits_for_another_attempt_shows_what_it_showed(url):
    """No entry of its history says that it was sent again, so neither does its line, nor its last change."""
    clock, minute = Clock(), datetime.timedelta(minutes=1)
    content = b"%PDF-1.7 locked"
    with open_store(url, clock=clock) as store:
        job_id = submit(store, "locked.pdf", content).job_id
        assert taken(store, ALL) == b""
        clock.now += minute
        task = claim(store, "worker", 600)
        said = {"result": None, "error": "encrypted", "confidence": None}
        finish(store, task, **new_job(0, document_sha256=task.document_sha256) | said)
        failed, line = clock.now, taken(store, ALL)
        assert json.loads(line)["final_result"] is None
        clock.now += minute
        submit(store, "locked.pdf", content)
        waiting = clock.now
        assert store.job(job_id).status == "queued"
        assert taken(store, ALL) == taken(store, ALL, waiting) == line
        for bounds in ((waiting, None), (None, waiting), (failed, None), (None, failed)):
            filters = Filters(False, *bounds)
            assert taken(store, filters) == taken(store, filters, waiting), bounds
        clock.now += minute
        task = claim(store, "worker", 600)
        finish(store, task, **new_job(0, document_sha256=task.document_sha256))
        assert taken(store, ALL, waiting) == line != taken(store, ALL)
