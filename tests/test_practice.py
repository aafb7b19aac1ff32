"""Planted errors are in practice stores only, and nothing that such a store holds becomes ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_samples import NO_RATES
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from review_samples import Ticking, new_job
from sqlalchemy import select

from ocr_sprint.api.app import create_app
from ocr_sprint.api.service import Settings
from ocr_sprint.core.errors import DataError
from ocr_sprint.documents.letter import Personel, Result, parse_result, result_data
from ocr_sprint.panels.practice import copy_to_practise
from ocr_sprint.review.changes import changes
from ocr_sprint.review.convert import convert
from ocr_sprint.review.database import reading
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.erasure import erase
from ocr_sprint.review.export import export_lines, write_corpus
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.practice import (
    add_practice_letter,
    is_practice,
    mark_practice,
    outcomes,
    own_catches,
    plant,
    planted_errors,
)
from ocr_sprint.review.schema import properties
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.verify_store import verify_store

RESULT: Any = result_data(
    Result(
        personel=tuple(
            Personel(no=n, nama=name, nrp=f"7706012{n}")
            for n, name in enumerate(("ACHMAD SUBAGYO", "BUDI HARTONO", "CITRA LESTARI"), 1)
        )
    )
)
RESULT["header"] |= {"nomor_sprint": "Sprin/42/V/2025", "perihal": "patroli malam", "tanggal": "2025-05-28"}


def letter(number: int) -> Any:
    return new_job(number, RESULT)


def practice(url: str) -> Store:
    store = open_store(url, clock=Ticking(), validate=parse_result)
    mark_practice(store)
    return store


def test_a_real_store_never_gets_planted_errors(url: str, tmp_path: Path) -> None:
    with open_store(url, clock=Ticking()) as real:
        job_id = real.add_job(**letter(1))
        before = list(export_lines(real, ALL))
        with pytest.raises(DataError, match="no practice store"):
            add_practice_letter(real, letter(2), share=1)
        with pytest.raises(DataError, match="the store has letters"):
            mark_practice(real)
        with practice(f"sqlite:///{tmp_path / 'practise.db'}") as target:
            assert copy_to_practise(real, target, share=1) == 1
            assert len(planted_errors(target, job_id)) > 5
            assert target.job(job_id).result != RESULT
        assert (list(export_lines(real, ALL)), is_practice(real)) == (before, False)
        with reading(real.engine) as connection:
            assert connection.execute(select(properties.c.name)).scalars().all() == ["store_id"]


def test_nothing_of_a_practice_store_becomes_ground_truth(url: str, tmp_path: Path) -> None:
    with practice(url) as store:
        job_id = add_practice_letter(store, letter(1), share=1)
        store.approve(job_id, by="reviewer-a")
        refused = pytest.raises(DataError, match="is there to practise on")
        with refused:
            list(export_lines(store))
        with refused:
            list(export_lines(store, as_of=store.clock()))
        with refused:
            write_corpus(store, tmp_path / "corpus.jsonl")
        with refused:
            changes(store)
        with refused:
            convert(store, tmp_path / "training")
        client = TestClient(
            create_app(store, Settings(tmp_path / "s", rates=NO_RATES)),
            "http://127.0.0.1/api/v1",
            client=("127.0.0.1", 50_000),
            raise_server_exceptions=False,
        )
        for ask in (client.get("/ground-truth/export"), client.get("/ground-truth/changes")):
            assert ask.status_code >= 400
            assert "SUBAG" not in ask.text
        assert not list(tmp_path.rglob("*.jsonl"))
        assert list(verify_store(store)) == []


def test_what_was_planted_is_counted_wherever_its_row_goes(url: str) -> None:
    with practice(url) as store:
        job_id = add_practice_letter(store, letter(1), share=1)
        names = [error for error in planted_errors(store, job_id) if error.field_path.endswith(".nama")]
        row = store.job(job_id).result["personel"][0]
        edits = [Edit("set", error.field_path, error.right) for error in names[1:]]
        moved = [Edit("remove", "personel[0]"), Edit("add", "personel[2]", row)]
        store.approve(job_id, edits=[*edits, *moved], by="reviewer-a")
        caught = {outcome.field_path for outcome in outcomes(store, job_id) if outcome.caught}
        assert caught == {error.field_path for error in names[1:]}
        mine = own_catches(store, "reviewer-a")
        assert (mine.letters, mine.caught, own_catches(store, "reviewer-b").letters) == (1, 2, 0)
        erase(store, job_id, by="admin-a")
        with reading(store.engine) as connection:
            left = set(connection.execute(select(properties.c.name)).scalars())
        assert left == {"store_id", "practice"}, "what was planted goes with the letter"


def test_nothing_is_planted_where_the_pipeline_was_in_doubt(url: str) -> None:
    with practice(url) as store:
        doubts = {"field_confidence": {"personel[0].nrp": 0.5}, "review_flags": ["nama_berangka@personel[1].nama"]}
        paths = [
            error.field_path for error in planted_errors(store, add_practice_letter(store, letter(1) | doubts, share=1))
        ]
        assert "personel[1].nrp" in paths
        assert {"personel[0].nrp", "personel[1].nama"}.isdisjoint(paths)


def test_a_letter_that_is_there_gets_no_further_errors(url: str) -> None:
    with practice(url) as store:
        job_id = add_practice_letter(store, letter(1), share=1)
        before = store.job(job_id), planted_errors(store, job_id)
        add_practice_letter(store, letter(1), share=0)
        assert (store.job(job_id), planted_errors(store, job_id)) == before


@given(st.text(max_size=20), st.floats(0, 1))
def test_planted_results_are_results_and_differ_where_it_says(seed: str, share: float) -> None:
    wrong, planted = plant(RESULT, seed, share, validate=parse_result)
    parse_result(wrong)
    assert (wrong == RESULT) == (not planted)
    for error in planted:
        assert error.right != error.planted
        assert len(error.right) == len(error.planted)
    assert plant(RESULT, seed, share, validate=parse_result) == (wrong, planted)
