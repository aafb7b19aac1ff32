"""Unsaved work in a store: a kernel that is started again has it, and nobody and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import orjson
import pytest
from review_samples import Ticking, new_job
from sqlalchemy import select

from ocr_sprint.documents.letter import Result, parse_result, result_data
from ocr_sprint.panels.desk import StoreDesk
from ocr_sprint.panels.drafts import Draft, Drafts, StoreKeeper
from ocr_sprint.panels.session import ReviewSession
from ocr_sprint.review.changes import changes
from ocr_sprint.review.database import reading
from ocr_sprint.review.drafts import kept_drafts
from ocr_sprint.review.erasure import erase
from ocr_sprint.review.export import export_lines
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.readiness import readiness
from ocr_sprint.review.schema import properties
from ocr_sprint.review.statistics import statistics
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.verify_store import verify_store

SECRET = "BUDI YANG BELUM DISIMPAN"
DONE = {"op": "set", "path": "header.perihal", "old": None, "value": SECRET, "reason": None}
ONE_BACKEND = pytest.mark.parametrize("backend", ["sqlite"])


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url, clock=Ticking(), validate=parse_result) as opened:
        yield opened


def add(store: Store, number: int = 1) -> str:
    return store.add_job(**new_job(number, result_data(Result())))


class Kernel:
    """A session as a kernel that was just started has it; what it does beside its work is done at once."""

    def __init__(self, store: Store, by: str = "reviewer-a") -> None:
        self.told: list[dict] = []
        tell = lambda message, *_: self.told.append(message)  # noqa: E731
        self.session = ReviewSession(StoreDesk(store, by), tell, in_background=lambda work: work())

    def ask(self, kind: str, **message: object) -> list[dict]:
        self.told.clear()
        self.session.handle({"kind": kind, **message})
        return list(self.told)

    def draft(self, job_id: str, mode: str = "first") -> dict | None:
        return self.ask("want", jobs=[job_id], mode=mode)[0]["draft"]


def work_on(job_id: str, **other: object) -> dict:
    about = {"job_id": job_id, "mode": "first", "run": 1, "version": 1, "ops": [DONE], "active": 1500.0, "n": 1}
    return {**about, **other}


def test_a_kernel_that_is_started_again_has_unsaved_work_until_it_is_handed_in(store: Store) -> None:
    job_id = add(store)
    Kernel(store).ask("draft", **work_on(job_id))
    again = Kernel(store)
    assert again.ask("hello")[0]["drafts"] == [job_id]
    assert again.draft(job_id) == {"kept": [DONE], "clashing": [], "active": 1500.0}
    assert Kernel(store, "reviewer-b").draft(job_id) is None
    save = {"id": "a", "approve": True, "seconds": None, **work_on(job_id)}
    (saved, _) = again.ask("save", **save)
    assert saved["kind"] == "saved"
    assert store.job(job_id).result["header"]["perihal"] == SECRET
    assert kept_drafts(store, "reviewer-a") == {}
    assert Kernel(store).ask("hello")[0]["drafts"] == []


def test_work_that_was_taken_back_leaves_nothing(store: Store) -> None:
    job_id = add(store)
    kernel = Kernel(store)
    kernel.ask("draft", **work_on(job_id))
    kernel.ask("draft", **work_on(job_id, ops=[]))
    assert (Kernel(store).draft(job_id), kept_drafts(store, "reviewer-a")) == (None, {})


def test_work_on_a_letter_that_somebody_changed_meanwhile_is_shown_as_such(store: Store) -> None:
    job_id = add(store)
    Kernel(store).ask("draft", **work_on(job_id))
    store.approve(job_id, by="reviewer-b")
    assert Kernel(store).draft(job_id) == {"kept": [], "clashing": [DONE], "active": 1500.0}


def test_nothing_that_leaves_the_store_tells_of_it(store: Store) -> None:
    job_id = add(store)
    before = (store.job(job_id), store.trail(job_id), changes(store))
    Kernel(store).ask("draft", **work_on(job_id))
    assert (store.job(job_id), store.trail(job_id), changes(store)) == before
    said = b"".join(export_lines(store, ALL))
    said += orjson.dumps([asdict(statistics(store)), asdict(readiness(store))], default=str)
    assert SECRET.encode() not in said
    assert list(verify_store(store)) == []


def test_it_goes_with_the_letter_and_does_not_come_after_it(store: Store) -> None:
    first, second = add(store, 1), add(store, 2)
    kernels = [Kernel(store, name) for name in ("reviewer-a", "reviewer-b")]
    for kernel in kernels:
        for job_id in (first, second):
            kernel.ask("draft", **work_on(job_id))
    erase(store, first, by="admin-a")
    kernels[0].ask("draft", **work_on(first, ops=[DONE, DONE]))  # of a page that does not know it yet
    with reading(store.engine) as connection:
        names = connection.execute(select(properties.c.name).where(properties.c.name.like("draft/%"))).scalars().all()
    assert [name.split("/")[1] for name in names] == [second] * 2


@ONE_BACKEND
def test_a_store_that_keeps_nothing_does_not_stop_the_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = add(store)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(StoreKeeper, "save", full)
    monkeypatch.setattr(StoreKeeper, "load", full)
    kernel = Kernel(store)
    assert kernel.ask("draft", **work_on(job_id))[0]["kind"] == "kept"
    assert kernel.draft(job_id) is not None


@ONE_BACKEND
def test_the_latest_work_is_what_is_kept_however_late_the_disk_is(store: Store) -> None:
    job_id, later = add(store), list[Callable[[], None]]()
    drafts = Drafts(StoreKeeper(store, "reviewer-a"), later.append)
    for number in range(5):
        drafts.put(job_id, "first", Draft(1, 1, [DONE | {"value": str(number)}]))
    assert len(later) == 1
    later.pop()()
    (text,) = kept_drafts(store, "reviewer-a").values()
    assert orjson.loads(text)["ops"][0]["value"] == "4"
    drafts.put(job_id, "first", None)
    later.pop()()
    assert kept_drafts(store, "reviewer-a") == {}


@ONE_BACKEND
def test_a_reviewer_is_told_what_a_name_is_worth(store: Store) -> None:
    job_id = add(store)
    store.approve(job_id, by="reviewer-a", seconds=7)
    own = next(message for message in Kernel(store).ask("hello") if message["kind"] == "own")["own"]
    assert (own["by_name"], own["pace"]["unchanged"]["letters"]) == (True, 1)
