"""Second answers are blind, kept, compared row by row, and settled by ordinary corrections and approvals."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_samples import Ticking, new_job, results
from sqlalchemy import text

from ocr_sprint.core.canonical import Json
from ocr_sprint.core.errors import DataError
from ocr_sprint.review import differences as distances
from ocr_sprint.review.agreement import field_agreement
from ocr_sprint.review.database import reading
from ocr_sprint.review.differences import compared, counterpart, differences
from ocr_sprint.review.edits import ConflictError, Edit
from ocr_sprint.review.fieldpath import get_value, parse_path
from ocr_sprint.review.ledger import NotFoundError
from ocr_sprint.review.lists import JobFilters, Reviewer
from ocr_sprint.review.replay import same
from ocr_sprint.review.second_review import (
    NotBlindError,
    agreement,
    conflicts,
    second_view,
    submit_second,
)
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.verify_store import verify_store

CONFLICTS = JobFilters(conflict=True)
FIRST = [Edit("set", "personel[0].nrp", "77060000"), Edit("set", "header.perihal", "Pengamanan")]
SECOND = [Edit("set", "personel[0].nrp", "77060000"), Edit("set", "personel[1].nrp", "80010001")]


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url, clock=Ticking()) as opened:
        yield opened
        assert list(verify_store(opened)) == []
        lists_tell_the_truth(opened)


def lists_tell_the_truth(store: Store) -> None:
    "What is listed for a second review may be reviewed by that person, and nothing else may; conflicts are listed."
    for name in ("reviewer-a", "reviewer-b", "reviewer-c", "nobody"):
        for actor in (None, f"token-{name}", "token-reviewer-a"):
            allowed = set()
            for job in store.jobs():
                with suppress(DataError):
                    allowed.add(second_view(store, job.job_id, name, actor).job_id)
            listed = store.page(JobFilters(second_by=Reviewer(name, actor))).jobs
            assert {job.job_id for job in listed} == allowed, (name, actor)
    assert {each.job_id for each in conflicts(store)} <= {job.job_id for job in store.page(CONFLICTS).jobs}
    assert store.count(CONFLICTS) == len(store.page(CONFLICTS).jobs)


def reviewed(store: Store, number: int = 1, edits: list[Edit] | None = None, by: str = "reviewer-a") -> str:
    "A job that one person has corrected and approved."
    job_id = store.add_job(**new_job(number))
    store.correct(job_id, FIRST if edits is None else edits, by=by, actor=f"token-{by}")
    store.approve(job_id, by=by, actor=f"token-{by}")
    return job_id


# Blind


@pytest.mark.parametrize("edits", [[], FIRST, [Edit("remove", "personel[0]")], [Edit("set", "personel", [])]])
def test_the_view_tells_nothing_of_the_first_answer(store: Store, edits: list[Edit]) -> None:
    job_id = reviewed(store, 1, edits)
    if edits:
        store.undo(job_id, by="reviewer-a")
        store.correct(job_id, edits, by="reviewer-d")
        store.approve(job_id, by="reviewer-e")
    view = asdict(second_view(store, job_id, by="reviewer-b"))
    untouched = new_job(1)
    known = ("filename", "source_kind", "pages", "engine", "result", "confidence", "field_confidence", "evidence")
    said = {name: untouched[name] for name in (*known, "review_flags", "ocr_text")}  # type: ignore[literal-required]
    assert view == {"job_id": job_id, "run": 1, **said}


@pytest.mark.parametrize("edits", [[], FIRST, [Edit("remove", "personel[0]")]])
def test_a_refused_edit_tells_nothing_either(store: Store, edits: list[Edit]) -> None:
    job_id = reviewed(store, 1, edits)
    wrong = [Edit("set", "personel[0].nrp", "1", expected="2")]
    with pytest.raises(ConflictError) as refused:
        submit_second(store, job_id, wrong, by="reviewer-b")
    assert (refused.value.found, refused.value.version) == ("7706OOOO", 0)
    with pytest.raises(DataError, match=r"there is no \[7\] in a list of 2"):
        submit_second(store, job_id, [Edit("remove", "personel[7]")], by="reviewer-b")


def test_who_had_a_part_in_the_first_answer_is_not_blind(store: Store) -> None:
    job_id = reviewed(store)
    store.correct(job_id, [Edit("set", "header.perihal", "x")], by="reviewer-c", actor="token-7")
    store.approve(job_id, by="reviewer-d")
    for by, actor in (
        ("reviewer-a", None),
        ("reviewer-c", "token-new"),
        ("reviewer-d", None),
        ("another name", "token-7"),
        ("another name", "token-reviewer-a"),
    ):
        for act in (second_view, lambda *a, **k: submit_second(a[0], a[1], [], **k)):
            with pytest.raises(NotBlindError, match=f"{by} reviewed it first"):
                act(store, job_id, by=by, actor=actor)
    submit_second(store, job_id, [], by="reviewer-b", actor="token-b")
    with pytest.raises(NotBlindError, match="reviewer-b reviewed it a second time already"):
        submit_second(store, job_id, [], by="reviewer-b")
    with pytest.raises(NotBlindError, match="a second time already"):
        second_view(store, job_id, by="reviewer-z", actor="token-b")
    assert submit_second(store, job_id, [], by="reviewer-e").n == 2


def test_there_must_be_a_first_answer(store: Store) -> None:
    job_id = store.add_job(**new_job(1))
    failed = store.add_job(**new_job(2, error="encrypted") | {"result": None})
    for job, act in (
        (job_id, lambda job: second_view(store, job, by="reviewer-b")),
        (job_id, lambda job: submit_second(store, job, [], by="reviewer-b")),
        (failed, lambda job: second_view(store, job, by="reviewer-b")),
    ):
        with pytest.raises(DataError, match="is not approved"):
            act(job)
    with pytest.raises(DataError, match="no result to review"):
        submit_second(store, failed, [], by="reviewer-b")
    with pytest.raises(NotFoundError):
        second_view(store, "c5da6747", by="reviewer-b")


def test_a_run_that_was_replaced_is_not_answered(store: Store) -> None:
    job_id = reviewed(store)
    view = second_view(store, job_id, by="reviewer-b")
    store.add_job(**new_job(1, engine="another"), rerun=True)
    store.approve(job_id, by="reviewer-a")
    with pytest.raises(ConflictError, match="was read again meanwhile"):
        submit_second(store, job_id, [], by="reviewer-b", expected_run=view.run)
    assert submit_second(store, job_id, [], by="reviewer-b", expected_run=2).agrees


def test_a_result_that_is_none_is_refused(url: str) -> None:
    def validate(result: Json) -> None:
        if isinstance(result, dict) and "personel" not in result:
            raise DataError("no personel")

    with open_store(url, validate=validate) as store:
        job_id = store.add_job(**new_job(1, {"header": {"x": {}}, "personel": []}))
        store.approve(job_id, by="reviewer-a")
        submit_second(store, job_id, [Edit("remove", "header.x")], by="reviewer-b")
        (found,) = conflicts(store)
        assert found.fields == [("header.x", {}, {}, None)]


def test_answers_at_the_same_time_are_all_kept(store: Store) -> None:
    job_id = reviewed(store)
    begin = threading.Barrier(6)

    def answer(number: int) -> None:
        begin.wait()
        submit_second(store, job_id, SECOND[: number % 3], by=f"reader-{number}")

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [entry.n for entry in store.trail(job_id) if entry.kind == "second_reviews"]
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert store.job(job_id).approved


# Conflicts


def test_a_conflict_shows_three_values_until_somebody_decides(store: Store) -> None:
    job_id = reviewed(store)
    review = submit_second(store, job_id, SECOND, by="reviewer-b")
    assert not review.agrees
    (conflict,) = conflicts(store)
    assert (conflict.job_id, conflict.second_by, conflict.at) == (job_id, "reviewer-b", review.at)
    assert conflict.fields == [
        ("header.perihal", None, "Pengamanan", None),
        ("personel[1].nrp", "8001OOOI", "8001OOOI", "80010001"),
    ]
    store.correct(job_id, [Edit("set", "personel[1].nrp", "80010001")], by="reviewer-c")
    (conflict,) = conflicts(store)
    assert [field.field_path for field in conflict.fields] == ["header.perihal"]
    store.approve(job_id, by="reviewer-c")
    assert conflicts(store) == []
    store.correct(job_id, [Edit("set", "header.perihal", None)], by="reviewer-c")
    assert conflicts(store, job_id) == []


@pytest.mark.parametrize("decider", ["reviewer-a", "reviewer-b", "reviewer-c"])
def test_a_decision_for_the_first_answer_closes_a_conflict(store: Store, decider: str) -> None:
    """Also by the first reviewer, whose approval stands: the decision is an entry of its own, and only one."""
    job_id = reviewed(store)
    submit_second(store, job_id, SECOND, by="reviewer-b")
    assert [job.job_id for job in store.page(CONFLICTS).jobs] == [job_id]
    before = store.job(job_id)
    decided = store.approve(job_id, by=decider, expected_version=before.version)
    assert (conflicts(store), store.page(CONFLICTS).jobs) == ([], [])
    assert (decided.result, decided.approved, decided.reviewed_by) == (before.result, True, decider)
    assert decided.version == before.version + 1
    assert [entry.kind for entry in store.trail(job_id)[-2:]] == ["second_reviews", "approvals"]
    assert store.approve(job_id, by=decider) == decided, "what is decided stays as it is"
    submit_second(store, job_id, SECOND, by="reviewer-d")
    assert len(conflicts(store)) == 1, "a further second answer is a further conflict"
    store.approve(job_id, by=decider)
    assert conflicts(store) == []


def test_taking_over_the_second_answer_settles_it(store: Store) -> None:
    job_id = reviewed(store)
    submit_second(store, job_id, SECOND, by="reviewer-b")
    store.correct(job_id, [Edit("set", "header.perihal", None), SECOND[1]], by="reviewer-a")
    assert conflicts(store) == []


def test_the_latest_second_answer_counts(store: Store) -> None:
    job_id = reviewed(store)
    submit_second(store, job_id, SECOND, by="reviewer-b")
    assert submit_second(store, job_id, FIRST, by="reviewer-c").agrees
    assert conflicts(store) == []
    found = agreement(store)
    assert (found.reviewed_twice, found.agreeing) == (1, 1)
    assert all(field.share == 1 for field in found.fields)


def test_rows_that_only_one_has_are_one_difference(store: Store) -> None:
    row = {"nrp": "90110022"}
    job_id = reviewed(store, 1, [Edit("remove", "personel[0]")])
    submit_second(store, job_id, [Edit("add", "personel[1]", row)], by="reviewer-b")
    (conflict,) = conflicts(store)
    assert conflict.fields == [
        ("personel[0]", {"nrp": "7706OOOO"}, None, {"nrp": "7706OOOO"}),
        ("personel[1]", None, None, row),
    ]
    shares = {field.field_path: (field.agreeing, field.compared) for field in agreement(store).fields}
    assert shares == {"header.perihal": (1, 1), "personel[*]": (1, 3), "personel[*].nrp": (1, 1)}


def test_a_damaged_history_hides_no_conflict(url: str) -> None:
    with open_store(url) as store:
        job_id = reviewed(store)
        submit_second(store, job_id, SECOND, by="reviewer-b")
        with store.engine.begin() as direct:
            direct.execute(text("UPDATE jobs SET result = replace(result, '8001OOOI', '8')"))
        with pytest.raises(DataError, match="what the pipeline said cannot be rebuilt"):
            second_view(store, job_id, by="reviewer-c")
        (conflict,) = conflicts(store)
        assert conflict.fields[1] == ("personel[1].nrp", None, "8", "80010001")


def test_a_second_review_is_no_line_of_the_corpus_but_a_change_of_the_job(store: Store) -> None:
    job_id = reviewed(store)
    before = store.job(job_id)
    submit_second(store, job_id, SECOND, by="reviewer-b")
    after = store.job(job_id)
    assert (after.result, after.approved, after.reviewed_by) == (before.result, True, "reviewer-a")
    assert (after.version, after.changed_at > before.changed_at) == (before.version + 1, True)
    with reading(store.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM second_reviews")).scalar_one() == 1


# Comparing


rows = st.lists(
    st.fixed_dictionaries(
        {"nama": st.text(min_size=4, max_size=12), "nrp": st.text("0123456789", min_size=8, max_size=8)}
    ),
    max_size=6,
    unique_by=lambda row: row["nrp"],
)


@given(results, results)
def test_differences_are_what_differs(first: Json, second: Json) -> None:
    assert differences(first, first) == []
    found = differences(first, second)
    assert len(found) == len(differences(second, first))
    for pair in compared(first, second):
        for path, root, value in ((pair.first_path, first, pair.first), (pair.second_path, second, pair.second)):
            reached: Any = root
            for token in path or ():
                reached = reached.get(token) if isinstance(reached, dict) else reached[token]
            assert path is None or same(reached, value)
    for difference in found:
        assert not same(difference.first, difference.second)
        assert parse_path(difference.field_path)


@given(rows, st.data())
def test_a_row_too_many_is_one_difference(people: list[Json], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(people)))
    more = [*people[:place], {"nama": "SRI WAHYUNI", "nrp": "none of them"}, *people[place:]]
    (found,) = differences({"personel": people}, {"personel": more})
    assert (found.field_path, found.first, found.second) == (f"personel[{place}]", None, more[place])
    (found,) = differences({"personel": more}, {"personel": people})
    assert (found.field_path, found.first, found.second) == (f"personel[{place}]", more[place], None)


@given(rows.filter(len), st.data())
def test_a_slip_in_a_row_is_one_field(people: list[Any], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(people) - 1))
    slipped = [dict(row) for row in people]
    slipped[place]["nrp"] = slipped[place]["nrp"][:-1] + "O"
    (found,) = differences({"personel": people}, {"personel": slipped})
    assert found.field_path == f"personel[{place}].nrp"
    assert get_value({"personel": people}, found.field_path) == found.first


@given(rows, rows)
def test_agreement_counts_every_value_once(first: Json, second: Json) -> None:
    one, other = {"personel": first}, {"personel": second}
    found = {field.field_path: field for field in field_agreement([(other, differences(one, other))])}
    pairs = list(compared(one, other))
    both = Counter(
        "".join("[*]" if isinstance(t, int) else f".{t}" for t in pair.first_path)[1:]
        for pair in pairs
        if pair.first_path and pair.second_path
    )
    for path in ("personel[*].nama", "personel[*].nrp"):
        assert (found[path].compared if path in found else 0) == both[path]
    alone = sum(pair.first_path is None or pair.second_path is None for pair in pairs)
    presence = found.get("personel[*]")
    assert (presence.compared - presence.agreeing if presence else 0) == alone


@given(rows, rows)
def test_the_short_way_is_no_dearer(first: list[Json], second: list[Json]) -> None:
    def cost() -> float:
        pairs = distances._paired(first, second)
        return sum(0.5 if None in (a, b) else distances._distance(first[a or 0], second[b or 0]) for a, b in pairs)

    short = cost()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distances, "_stay", lambda *_: False)
        assert cost() == pytest.approx(short)


def test_large_lists_take_no_time() -> None:
    many: list[Json] = [{"nama": f"ORANG {number}", "nrp": f"{number:08}"} for number in range(3000)]
    assert len(differences({"personel": many}, {"personel": many[1:]})) == 1
    other: list[Json] = [{"nama": f"LAIN {number}", "nrp": f"{number + 5000:08}"} for number in range(3000)]
    pairs = list(compared({"personel": many}, {"personel": other}))
    assert len(pairs) == 6000
    assert counterpart(("personel", 7), pairs, {"personel": other}) == other[7]
