"""How long reviewers worked is theirs alone, outside of everything that is exported, and goes with the letter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson
import pytest
from api_samples import NO_RATES
from fastapi.testclient import TestClient
from review_samples import Ticking, new_job
from sqlalchemy import func, select

from ocr_sprint.api.app import create_app
from ocr_sprint.api.service import Settings
from ocr_sprint.core.errors import DataError
from ocr_sprint.review.changes import changes
from ocr_sprint.review.database import reading
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.erasure import erase
from ocr_sprint.review.export import export_lines
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.pace import Pace, Seconds, own_pace
from ocr_sprint.review.readiness import readiness
from ocr_sprint.review.schema import review_times
from ocr_sprint.review.second_review import submit_second
from ocr_sprint.review.statistics import statistics
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.tokens import create_token
from ocr_sprint.review.verify_store import verify_store

EDITS = [Edit("set", "header.perihal", "Pengamanan")]
ODD = 7919.25  # seconds that nothing else would say


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url, clock=Ticking()) as opened:
        yield opened
        assert list(verify_store(opened)) == []


def kept(store: Store) -> int:
    with reading(store.engine) as connection:
        return int(connection.execute(select(func.count()).select_from(review_times)).scalar_one())


def test_times_come_with_what_was_done_and_are_told_apart_by_whether_it_changed_anything(store: Store) -> None:
    first, second = (store.add_job(**new_job(number)) for number in (1, 2))
    store.approve(first, edits=EDITS, by="reviewer-a", seconds=20)
    store.approve(second, by="reviewer-a", seconds=5)
    submit_second(store, first, [], by="reviewer-b", seconds=9)
    mine = own_pace(store, "reviewer-a")
    assert mine == Pace(Seconds(1, 20, 20), Seconds(1, 5, 5))
    assert own_pace(store, "reviewer-b").unchanged.median == 9
    assert own_pace(store, "reviewer-c").unchanged.letters == 0


@pytest.mark.parametrize("actor", [None, "t1"])
def test_a_letter_that_was_corrected_before_it_was_approved_counts_as_corrected(
    store: Store, actor: str | None
) -> None:
    job_id = store.add_job(**new_job(1))
    store.correct(job_id, EDITS, by="reviewer-a", actor=actor)
    store.approve(job_id, by="reviewer-b", actor=actor and "t2", seconds=3)
    assert own_pace(store, "reviewer-b", actor and "t2").changed.letters == 0, "another corrected it"
    store.correct(job_id, [Edit("set", "header.perihal", "Patroli")], by="reviewer-a", actor=actor)
    store.approve(job_id, by="reviewer-a", actor=actor, seconds=20)
    assert own_pace(store, "reviewer-a", actor) == Pace(Seconds(1, 20, 20), Seconds(0, None, None))
    store.approve(job_id, by="reviewer-a", actor=actor, seconds=2)
    assert own_pace(store, "reviewer-a", actor) == Pace(Seconds(1, 20, 20), Seconds(1, 2, 2))


@pytest.mark.parametrize("seconds", [-1, 86_401, float("nan"), float("inf")])
def test_what_is_no_time_is_refused_with_everything(store: Store, seconds: float) -> None:
    job_id = store.add_job(**new_job(1))
    before = store.job(job_id)
    with pytest.raises(DataError, match="seconds on a letter"):
        store.approve(job_id, edits=EDITS, by="reviewer-a", seconds=seconds)
    assert (store.job(job_id), kept(store)) == (before, 0)


def test_nothing_that_leaves_the_store_tells_them(store: Store) -> None:
    job_id = store.add_job(**new_job(1))
    store.approve(job_id, edits=EDITS, by="reviewer-a", seconds=ODD)
    said = b"".join(export_lines(store, ALL))
    said += orjson.dumps([asdict(statistics(store)), asdict(readiness(store))], default=str)
    said += repr([store.trail(job_id), store.job(job_id), store.events(job_id), changes(store)]).encode()
    assert b"Pengamanan" in said
    assert str(ODD).encode() not in said


def test_they_go_with_the_letter(store: Store) -> None:
    first, second = (store.add_job(**new_job(number)) for number in (1, 2))
    for job_id in (first, second):
        store.approve(job_id, by="reviewer-a", seconds=3)
    erase(store, first, by="admin-a")
    assert (kept(store), own_pace(store, "reviewer-a").unchanged.letters) == (1, 1)


def test_a_token_is_told_about_itself_only(url: str, tmp_path: Any) -> None:
    with open_store(url, clock=Ticking()) as store:
        job_id = store.add_job(**new_job(1))
        names = {"reviewer-a": "reviewer", "reviewer-b": "reviewer", "chief": "admin", "guest": "viewer"}
        tokens = {name: create_token(store, name, role, aliases=["reviewer-a"]) for name, role in names.items()}
        client = TestClient(create_app(store, Settings(tmp_path, rates=NO_RATES)), "http://127.0.0.1/api/v1")

        def ask(name: str, **more: str) -> Any:
            return client.get("/pace", headers={"Authorization": f"Bearer {tokens[name]}"} | more)

        headers = {"Authorization": f"Bearer {tokens['reviewer-a']}", "If-Match": '"1"'}
        body = {"edits": [{"op": "set", "field_path": "header.perihal", "value": "x"}], "seconds": ODD}
        assert client.post(f"/jobs/{job_id}/approve", json=body | {"seconds": -1}, headers=headers).status_code == 422
        answer = client.post(f"/jobs/{job_id}/approve", json=body, headers=headers)
        assert answer.status_code == 200
        assert str(ODD) not in answer.text
        assert ask("reviewer-a").json()["changed"] == {"letters": 1, "median": ODD, "p90": ODD}
        for name in ("reviewer-b", "chief"):  # not even under her name
            assert ask(name, **{"X-User-Id": "reviewer-a"}).json()["changed"]["letters"] == 0
        assert ask("guest").status_code == 403
        for path in (f"/jobs/{job_id}/result", f"/jobs/{job_id}/trail", "/ground-truth/stats", "/ground-truth/changes"):
            assert str(ODD) not in client.get(path, headers={"Authorization": f"Bearer {tokens['chief']}"}).text
        again = {"Authorization": f"Bearer {tokens['reviewer-b']}", "X-User-Id": "reviewer-b"}
        second = client.post(f"/jobs/{job_id}/second-review", json={"run": 1, "edits": [], "seconds": 4}, headers=again)
        assert second.status_code == 201
        assert ask("reviewer-b").json()["unchanged"]["median"] == 4
