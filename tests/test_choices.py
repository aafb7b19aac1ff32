"""What a list can be narrowed to: the counts are the lengths of the lists that the choices lead to."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import pytest
from api_samples import NO_RATES
from fastapi.testclient import TestClient
from review_samples import Ticking, new_job

from ocr_sprint.api.app import create_app
from ocr_sprint.api.service import Settings
from ocr_sprint.review import choices
from ocr_sprint.review.choices import Choice, list_choices
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.lists import JobFilters, Reviewer
from ocr_sprint.review.second_review import submit_second
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.tokens import create_token

UNITS = ("POLRES A", "POLRES B", "Polres b", "", None)
FLAGS = ([], ["nrp_format@personel[0].nrp", "nrp_format@personel[1].nrp"], ["rare:2", "nrp_format"], ["nrp_formatter"])
LISTS = (
    JobFilters(),
    JobFilters("done", approved=False),
    JobFilters("done", approved=True),
    JobFilters("failed"),
    JobFilters(second_by=Reviewer("reviewer-b")),
    JobFilters(conflict=True),
)


def fill(store: Store) -> None:
    """Letters of every unit with all kinds of flags; some are approved, some answered by a second person."""
    for number, (unit, flags) in enumerate(product(UNITS, FLAGS)):
        result = {"header": {"satuan": unit, "perihal": None}}
        job_id = store.add_job(**new_job(number, result, review_flags=flags))
        if number % 2:
            store.approve(job_id, by="reviewer-a")
        if number % 4 == 1:
            differs = [Edit("set", "header.perihal", "patroli", None)] if number % 8 == 1 else []
            submit_second(store, job_id, differs, by="reviewer-c")
    store.add_job(**new_job(99) | {"result": None, "error": "torn", "review_flags": ["no_text"]})


def check(store: Store, filters: JobFilters) -> None:
    found = list_choices(store, filters)
    lengths = [store.count(replace(filters, flag=each.value)) for each in found.flags]
    assert lengths == [each.jobs for each in found.flags] == sorted(lengths, reverse=True)
    lengths = [store.count(replace(filters, satuan=each.value)) for each in found.units]
    assert lengths == [each.jobs for each in found.units] == sorted(lengths, reverse=True)


def test_every_count_is_the_length_of_its_list(url: str) -> None:
    with open_store(url, clock=Ticking()) as store:
        fill(store)
        for filters in LISTS:
            for flag, unit in product((None, "rare", "nrp_format", "unknown"), (None, "POLRES B", "POLRES C")):
                check(store, replace(filters, flag=flag, satuan=unit))
        assert list_choices(store, JobFilters(conflict=True)).units
        every = list_choices(store, JobFilters())
        assert {each.value for each in every.flags} == {"nrp_format", "nrp_formatter", "rare", "no_text"}
        assert {each.value for each in every.units} == {"POLRES A", "POLRES B", "Polres b"}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_of_very_many_the_rarest_are_left_out_and_counted_and_the_chosen_one_stays(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "_MOST", 2)
    with open_store(url, clock=Ticking()) as store:
        fill(store)
        found = list_choices(store, JobFilters(satuan="POLRES Z"))
        assert (len(found.units), found.units[-1], found.more) == (2, Choice("POLRES Z", 0), 2)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_over_http(url: str, tmp_path: Path) -> None:
    with open_store(url, clock=Ticking()) as store:
        fill(store)
        bearer = {"Authorization": f"Bearer {create_token(store, 'guest', 'viewer')}"}
        app = create_app(store, Settings(tmp_path, rates=NO_RATES))
        client = TestClient(app, "http://127.0.0.1/api/v1", headers=bearer)
        for query, filters in (
            ({}, JobFilters()),
            ({"status": "done", "approved": "false", "flag": "rare"}, JobFilters("done", approved=False, flag="rare")),
            ({"review": "conflict", "satuan": "POLRES A"}, JobFilters(conflict=True, satuan="POLRES A")),
        ):
            told = client.get("/job-choices", params=query).json()
            found = asdict(list_choices(store, filters))
            assert told == found | {name: list(found[name]) for name in ("flags", "units")}
        assert client.get("/job-choices", params={"cursor": "x"}).status_code == 422
