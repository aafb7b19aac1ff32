"""Readiness: what is counted, what is left out and why, and rows that keep their places through every correction."""

import datetime
from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_samples import histories, new_job, places
from sqlalchemy import text

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.intervals import wilson
from ocr_sprint.core.report import to_html, to_markdown
from ocr_sprint.review.candidates import review_next
from ocr_sprint.review.database import writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.field_errors import field_errors, field_units, letter_errors
from ocr_sprint.review.fieldpath import fold_path, format_path
from ocr_sprint.review.readiness import HEADER_LETTERS, TABLE_ROWS, UNIT_LETTERS, half_width, readiness
from ocr_sprint.review.readiness_report import readiness_report
from ocr_sprint.review.replay import Event, replay
from ocr_sprint.review.second_review import submit_second
from ocr_sprint.review.store import open_store
from ocr_sprint.review.table_rows import row_origins

START = datetime.datetime(2025, 6, 1, tzinfo=datetime.UTC)
PERSON = {"nama": "BUDI", "nrp": "7706OOOO", "jabatan": None}
BOXES = {"fields": {f"personel[{row}].{key}": [{"page": 1, "box": [0, 0, 9, 9]}] for row in (0, 1) for key in PERSON}}


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def later(self, **time):
        self.now += datetime.timedelta(**time)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(url, clock):
    with open_store(url, clock=clock) as opened:
        yield opened


def add(store, number, *, unit="POLRES CONTOH", file=True, approve=True, edits=(), **others):
    """A letter with two people, corrected and approved."""
    header = {"nomor_sprint": f"Sprin/{number}", "perihal": None, "satuan": unit}
    content = f"letter {number}".encode()
    job = new_job(number, {"header": header, "personel": [PERSON, PERSON]}, evidence=BOXES, ocr_text="SURAT") | others
    job["document_sha256"] = sha256_hex(content)
    job_id = store.add_job(document=content if file else None, **job)
    if edits:
        store.correct(job_id, list(edits), by="reviewer-a")
    if approve:
        store.approve(job_id, by="reviewer-a")
    return job_id


def damage(store, statement, *tables):
    """Do what only the owner of the database can do."""
    with writing(store.engine) as connection:
        for table in tables:
            sqlite = connection.dialect.name == "sqlite"
            drop = f"DROP TRIGGER {table}_no_update" if sqlite else f"ALTER TABLE {table} DISABLE TRIGGER ALL"
            connection.execute(text(drop))
        connection.execute(text(statement))


def test_letters_are_left_out_for_the_first_reason(store):
    add(store, 0)
    add(store, 1, edits=[Edit("set", "header.perihal", "Patroli")])
    add(store, 2, approve=False)
    add(store, 3, ocr_text=None)
    add(store, 4, result={"header": {"perihal": None}})
    add(store, 5, result={"header": {"perihal": None}}, ocr_text=None)
    drifting, unproved, stale = (add(store, number, edits=[Edit("set", "header.perihal", "x")]) for number in (6, 7, 8))
    damage(store, f"UPDATE jobs SET result = '{{\"header\": {{}}}}' WHERE job_id = '{drifting}'")
    seq = f"(SELECT seq FROM jobs WHERE job_id = '{unproved}')"
    damage(store, f"UPDATE runs SET initial_sha256 = NULL WHERE job_seq = {seq}", "runs")
    damage(store, f"UPDATE jobs SET reviewed_at = '2025-01-01T00:00:00Z' WHERE job_id = '{stale}'")
    found = readiness(store)
    assert (found.approved, found.usable, found.hard, found.sanity) == (8, 2, 1, 1)
    assert found.left_out == {
        "its text was not kept": 1,
        "no header was read": 2,
        "its first output cannot be rebuilt": 1,
        "its first output cannot be proved": 1,
        "it was corrected after its approval": 1,
    }
    assert found.approved == found.usable + sum(found.left_out.values())


def test_thresholds_are_those_of_the_requirements():
    assert (HEADER_LETTERS, UNIT_LETTERS, TABLE_ROWS) == ((200, 500), 50, 1000)
    assert [half_width(n) for n in (50, 200, 500, 1000)] == [0.0851, 0.0419, 0.0264, 0.0186]


def test_growth_is_that_of_the_last_thirty_days(store, clock):
    for number in range(10):
        add(store, number)
    clock.later(days=60)
    for number in range(10, 16):
        add(store, number)
        clock.later(days=1)
    found = readiness(store)
    header = found.buckets[0]
    assert (found.per_day, header.counted, header.missing) == (0.2, 16, 184)
    assert header.days == pytest.approx(184 / 0.2)
    clock.later(days=60)
    assert readiness(store).buckets[0].days is None


def test_a_young_store_grows_at_the_rate_of_its_age(store, clock):
    add(store, 0)
    clock.later(days=4)
    add(store, 1)
    assert readiness(store).per_day == 0.5


def test_units_lack_letters_each_for_itself(store):
    for number in range(3):
        add(store, number, unit=["POLRES CONTOH", "POLDA FIKSI"][number % 2])
    add(store, 3, unit=None)
    found = readiness(store)
    assert [(unit.satuan, unit.counted, unit.missing) for unit in found.units] == [
        ("POLRES CONTOH", 2, 48),
        ("POLDA FIKSI", 1, 49),
    ]
    assert (found.buckets[1].counted, found.buckets[1].missing) == (0, 1)


def test_a_letter_that_was_scanned_twice_is_told(store):
    for number in range(3):
        edits = [Edit("set", "header.nomor_sprint", "Sprin/1" if number else None)]
        add(store, number, edits=edits)
    add(store, 9, unit="POLDA FIKSI", edits=[Edit("set", "header.nomor_sprint", "Sprin/1")])
    found = readiness(store)
    assert (found.repeated_letters, found.duplicate_documents) == (1, 0)


def test_rows_need_a_picture_and_a_box_for_every_cell(store):
    add(store, 0)
    add(store, 1, file=False)
    add(store, 2, evidence=None)
    add(store, 3, edits=[Edit("add", "personel[0]", {"nama": "ANDI"}), Edit("set", "personel[1].nrp", "77060000")])
    add(store, 4, ocr_text=None)  # no letter for headers, but its rows are as good as any
    found = readiness(store).tables
    assert (found.rows, found.pictured, found.boxed, found.usable) == (11, 9, 8, 6)


@st.composite
def row_changes(draw):
    """A list of named rows, and events that insert, delete, exchange and change them."""
    rows = [{"id": number} for number in range(draw(st.integers(0, 4)))]
    initial, fresh, events = {"personel": list(rows), "dasar": ["a"]}, 100, []
    for n in range(1, draw(st.integers(0, 8)) + 1):
        kind = draw(st.sampled_from(["add", "remove", "set", "cell", "list", "other"]))
        if kind in ("remove", "set", "cell") and not rows:
            kind = "add"
        fresh += 1
        at = draw(st.integers(0, len(rows) - (kind != "add"))) if kind not in ("list", "other") else 0
        if kind == "add":
            rows = [*rows[:at], {"id": fresh}, *rows[at:]]
            events.append(Event(n, "add", f"personel[{at}]", None, {"id": fresh}))
        elif kind == "remove":
            events.append(Event(n, "remove", f"personel[{at}]", rows[at], None))
            rows = rows[:at] + rows[at + 1 :]
        elif kind in ("set", "cell"):
            new = {**rows[at], "nama": f"name {n}"} if kind == "set" or "nama" in rows[at] else None
            if new is None or kind == "set":
                new = {**rows[at], "nama": f"name {n}"}
                events.append(Event(n, "set", f"personel[{at}]", rows[at], new))
            else:
                events.append(Event(n, "set", f"personel[{at}].nama", rows[at]["nama"], new["nama"]))
            rows = [*rows[:at], new, *rows[at + 1 :]]
        elif kind == "list":
            new_rows = [{"id": fresh}]
            events.append(Event(n, "set", "personel", rows, new_rows))
            rows = new_rows
        else:
            events.append(Event(n, "set", "dasar[0]", "a", "a"))
    return initial, events


@given(row_changes())
def test_rows_are_followed_through_every_correction(made):
    initial, events = made
    final = replay(initial, events)
    origins = row_origins(len(initial["personel"]), events)
    assert [row["id"] if row["id"] < 100 else None for row in final["personel"]] == origins


@given(histories())
def test_every_value_is_compared_once(history):
    initial, _, final = history
    expected = Counter()
    for path, value in places(final):
        folded = fold_path(format_path(path))
        if not isinstance(value, dict | list) or (isinstance(value, dict) and folded.endswith("[*]")):
            expected[folded] += 1
    assert field_units(final) == expected
    compared, wrong = letter_errors(initial, final)
    assert all(0 < wrong[path] <= compared[path] for path in wrong)
    assert not letter_errors(final, final)[1]


def test_rates_have_the_interval_of_wilson():
    (field,) = field_errors({"header.perihal": 540}, {"header.perihal": 97})
    assert (field.low, field.high) == wilson(97, 540)
    assert field.rate == pytest.approx(97 / 540)


def test_errors_are_those_of_the_first_output_and_not_of_the_corrections(store):
    twice = [Edit("set", "header.perihal", "Razia"), Edit("set", "header.perihal", "Patroli")]
    add(store, 0, edits=twice)
    add(store, 1, edits=[Edit("set", "header.perihal", "x"), Edit("set", "header.perihal", None)])
    add(store, 2, edits=[Edit("add", "personel[0]", {"nama": "ANDI", "nrp": "1", "jabatan": None})])
    counted = {signal.errors.field_path: signal.errors for signal in readiness(store).fields}
    assert (counted["header.perihal"].errors, counted["header.perihal"].compared) == (1, 3)
    assert (counted["personel[*]"].errors, counted["personel[*]"].compared) == (1, 7)
    assert (counted["personel[*].nrp"].errors, counted["personel[*].nrp"].compared) == (0, 6)


def test_errors_count_when_they_are_more_than_the_noise_of_reviewers(store):
    ids = [add(store, number, edits=[Edit("set", "header.perihal", "Patroli")]) for number in range(4)]
    assert {signal.above_noise for signal in readiness(store).fields} == {None}
    for number, job_id in enumerate(ids):
        first = [Edit("set", "header.perihal", "Patroli")]
        first += [Edit("set", "header.nomor_sprint", "another number")] if number else []
        submit_second(store, job_id, first, by="reviewer-b")
    found = {signal.errors.field_path: signal for signal in readiness(store).fields}
    assert (found["header.perihal"].disagreement, found["header.perihal"].above_noise) == (0, True)
    assert (found["header.nomor_sprint"].disagreement, found["header.nomor_sprint"].above_noise) == (0.75, False)
    assert found["header.nomor_sprint"].reviewed_twice == 4


def test_what_to_review_next_weighs_errors_and_units(store):
    sure, unsure = {"a": 0.99, "b": 0.99}, {"a": 0.5, "b": 0.4}
    for number in range(3):
        add(store, number)
    ids = [
        add(store, 10, approve=False, field_confidence=sure),
        add(store, 11, approve=False, field_confidence=unsure),
        add(store, 12, approve=False, field_confidence=sure, unit="POLDA FIKSI"),
        add(store, 13, approve=False, field_confidence=sure, unit=None),
    ]
    usable = {"POLRES CONTOH": 50, "POLDA FIKSI": 0}
    ranked = [candidate.job_id for candidate in review_next(store, usable, per_unit=50)]
    assert ranked == [ids[1], ids[2], ids[0], ids[3]] or ranked == [ids[1], ids[2], ids[3], ids[0]]
    assert [candidate.unit_missing for candidate in review_next(store, usable, per_unit=50, limit=2)] == [0, 50]


def test_a_report_says_what_was_counted(store):
    add(store, 0, edits=[Edit("set", "header.perihal", "Patroli")])
    add(store, 1, approve=False)
    found = readiness(store)
    words = to_markdown(readiness_report(found))
    assert "1 of 1 approved letters can be used" in words
    assert "199 short" in words
    assert "998 rows are missing" in words
    assert "sprint-001.pdf" in words
    page = to_html(readiness_report(found))
    assert page.count("Plotly.react") >= 1
    assert orjson.loads(orjson.dumps(found))["tables"] == {"rows": 2, "pictured": 2, "boxed": 2, "usable": 2}


def test_an_empty_store_makes_a_report_too(store):
    words = to_markdown(readiness_report(readiness(store)))
    assert "0 of 0 approved letters can be used" in words
    assert "There is no usable letter yet." in words
