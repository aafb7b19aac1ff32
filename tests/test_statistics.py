"""Statistics against a count of the exported lines by hand, on both databases, with everything that can be wrong."""

import json
import re
from collections import Counter

import orjson
import pytest
from review_samples import Ticking, new_job
from sqlalchemy import text

from ocr_sprint.review.database import writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.export import export_lines
from ocr_sprint.review.filters import Filters
from ocr_sprint.review.queue import submit
from ocr_sprint.review.replay import reverse
from ocr_sprint.review.second_review import agreement, submit_second
from ocr_sprint.review.statistics import FieldCount, statistics
from ocr_sprint.review.store import open_store
from ocr_sprint.tools.demo import edits_towards

UNITS = ["POLRES CONTOH", "POLDA FIKSI", None]


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        fill(opened)
        yield opened


def fill(store):
    """Nine letters of three units, corrected in various ways; one that failed, one that waits."""
    for number in range(9):
        header = {"perihal": None, "satuan": UNITS[number % 3]}
        people = [{"nrp": "7706OOOO"}, {"nrp": "8001OOOI"}]
        job_id = store.add_job(**new_job(number, {"header": header, "personel": people, "a.b": {"c": 1}}))
        if number % 2:
            edits = [Edit("set", f"personel[{row}].nrp", str(number)) for row in range(number % 3)]
            store.correct(job_id, [Edit("set", "header.perihal", "Patroli"), *edits], by="reviewer-a")
        if number % 4 == 1:
            store.correct(
                job_id, [Edit("add", "personel[0]", {"nrp": "1"}), Edit("remove", '["a.b"].c')], by="reviewer-a"
            )
        if number == 5:
            store.undo(job_id, by="reviewer-b")
        if number > 4:
            store.approve(job_id, by="reviewer-b")
    store.add_job(**new_job(90) | {"result": None, "error": "no page"})
    submit(store, "waiting.pdf", b"%PDF-1.7 waiting")


def lines_of(store):
    return [json.loads(line) for line in export_lines(store, Filters(approved_only=False))]


def unit_of(line):
    return (line["final_result"] or {}).get("header", {}).get("satuan")


def damage(store, statement, *tables):
    """Do what only the owner of the database can do."""
    with writing(store.engine) as connection:
        for table in tables:
            if connection.dialect.name == "sqlite":
                connection.execute(text(f"DROP TRIGGER {table}_no_update"))
            else:
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        connection.execute(text(statement))


def test_totals_are_those_of_the_lines(store):
    lines, counted = lines_of(store), statistics(store)
    assert counted.total_jobs == len(lines) == 10
    assert counted.approved_jobs == sum(line["approved"] for line in lines) == 4
    assert counted.total_corrections == sum(len(line["corrections"]) for line in lines)
    assert counted.jobs_with_corrections == sum(bool(line["corrections"]) for line in lines) == 4
    assert (counted.queued_jobs, counted.failed_jobs) == (1, 1)
    assert (counted.unreplayable, counted.unverified, counted.stale_approvals) == (0, 0, 0)


def test_fields_are_counted_as_lines_show_them(store):
    literal = Counter(each["field_path"] for line in lines_of(store) for each in line["corrections"])
    folded = Counter()
    for path, count in literal.items():
        folded[re.sub(r"\[\d+\]", "[*]", path)] += count
    counted = statistics(store, top=100)
    assert {field.field_path: field.count for field in counted.top_corrected_fields} == literal
    assert {field.field_path: field.count for field in counted.top_corrected_fields_folded} == folded
    ranked = sorted(literal.items(), key=lambda item: (-item[1], item[0]))
    assert [(field.field_path, field.count) for field in counted.top_corrected_fields] == ranked
    assert statistics(store, top=1).top_corrected_fields == counted.top_corrected_fields[:1]


def test_units_are_counted_apart(store):
    done = [line for line in lines_of(store) if line["final_result"] is not None]
    counted = {unit.satuan: unit for unit in statistics(store, top=100).per_satuan}
    assert set(counted) == set(UNITS)
    for name, unit in counted.items():
        its_lines = [line for line in done if unit_of(line) == name]
        corrections = [each["field_path"] for line in its_lines for each in line["corrections"]]
        assert (unit.jobs, unit.approved) == (len(its_lines), sum(line["approved"] for line in its_lines))
        assert (unit.corrections, unit.jobs_with_corrections) == (
            len(corrections),
            sum(bool(line["corrections"]) for line in its_lines),
        )
        folded = Counter(re.sub(r"\[\d+\]", "[*]", path) for path in corrections)
        assert {field.field_path: field.count for field in unit.top_corrected_fields} == folded


def test_a_letter_moves_with_its_unit(store):
    job = next(job for job in store.jobs() if job.result and job.result["header"]["satuan"] == "POLDA FIKSI")
    store.correct(job.job_id, [Edit("set", "header.satuan", "POLRES REKAAN")], by="reviewer-a")
    counted = {unit.satuan: unit for unit in statistics(store).per_satuan}
    assert counted["POLRES REKAAN"].jobs == 1
    assert FieldCount("header.satuan", 1) in counted["POLRES REKAAN"].top_corrected_fields


def test_a_further_run_starts_without_corrections(store):
    before = statistics(store)
    job = next(job for job in store.jobs() if store.events(job.job_id))
    gone = len(store.events(job.job_id))
    store.add_job(rerun=True, **new_job(0, job.result) | {"document_sha256": job.document_sha256})
    after = statistics(store)
    assert after.total_corrections == before.total_corrections - gone
    assert after.jobs_with_corrections == before.jobs_with_corrections - 1


def test_a_further_run_that_is_corrected_counts_as_one_letter(store):
    jobs = [job for job in store.jobs() if store.events(job.job_id)][:2]
    for job in jobs:
        store.add_job(rerun=True, **new_job(0, job.result) | {"document_sha256": job.document_sha256})
    for value in ("Razia", "Patroli malam"):
        store.correct(jobs[0].job_id, [Edit("set", "header.perihal", value)], by="reviewer-b")
    test_totals_of_corrections_are_those_of_the_lines(store)
    assert statistics(store).jobs_with_corrections == 3


def test_totals_of_corrections_are_those_of_the_lines(store):
    lines, counted = lines_of(store), statistics(store)
    assert counted.total_corrections == sum(len(line["corrections"]) for line in lines)
    assert counted.jobs_with_corrections == sum(bool(line["corrections"]) for line in lines)
    assert counted.jobs_with_corrections == sum(unit.jobs_with_corrections for unit in counted.per_satuan)


def test_what_cannot_be_trusted_is_counted(store):
    job = next(job for job in store.jobs(approved=True) if store.events(job.job_id))
    damage(store, f"UPDATE jobs SET result = '{{}}' WHERE job_id = '{job.job_id}'")
    assert statistics(store).unreplayable == 1
    assert statistics(store, prove=False).unreplayable is None
    damage(store, f"UPDATE jobs SET reviewed_at = '2025-01-01T00:00:00Z' WHERE job_id = '{job.job_id}'")
    assert statistics(store).stale_approvals == 1
    damage(store, "UPDATE runs SET initial_sha256 = NULL", "runs")
    assert statistics(store).unverified == 9


def test_second_readers_are_counted_by_letter_and_by_their_latest_answer(store):
    once, twice, stale, *_ = store.jobs(approved=True)
    submit_second(store, once.job_id, [Edit("set", "header.perihal", "Razia")], by="reviewer-c")
    for name in ("reviewer-c", "reviewer-d"):
        edits = edits_towards(twice.result, reverse(twice.result, store.events(twice.job_id)))
        submit_second(store, twice.job_id, edits if name == "reviewer-d" else [], by=name)
    submit_second(store, stale.job_id, [], by="reviewer-c")
    store.add_job(rerun=True, **new_job(0, stale.result) | {"document_sha256": stale.document_sha256})
    counted, found = statistics(store), agreement(store)
    assert (counted.second_reviews, counted.second_reviews_agreeing) == (2, 1)
    assert (found.reviewed_twice, found.agreeing) == (2, 1)


def test_paths_that_are_none_are_counted_as_they_stand(store):
    damage(store, "UPDATE events SET field_path = 'a..b' WHERE field_path = 'header.perihal'", "events")
    counted = statistics(store)
    assert FieldCount("a..b", 4) in counted.top_corrected_fields
    assert FieldCount("a..b", 4) in counted.top_corrected_fields_folded


def test_the_same_numbers_for_programs(store):
    written = orjson.loads(orjson.dumps(statistics(store)))
    assert list(written)[:5] == [
        "total_jobs", "approved_jobs", "total_corrections", "jobs_with_corrections", "top_corrected_fields",
    ]  # fmt: skip
    assert written["top_corrected_fields"][0].keys() == {"field_path", "count"}


def test_an_empty_store_has_nothing(new_url, backend):
    with open_store(new_url(backend)) as empty:
        counted = statistics(empty)
    assert (counted.total_jobs, counted.total_corrections, counted.per_satuan) == (0, 0, ())
    assert counted.unreplayable == 0
