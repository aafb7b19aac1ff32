"""Verification finds what was changed, and nothing where nothing was; differences lead from one corpus to the next."""

import json
import sqlite3
import tempfile
from pathlib import Path
from random import Random

import pytest
from export_samples import DAMAGE, PERIHAL, by_hand, filled, rows_of
from hypothesis import given
from hypothesis import strategies as st
from review_samples import Ticking, new_job
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review.database import store_name, writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.erasure import erase
from ocr_sprint.review.export import Filters, write_corpus
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.manifest import Manifest, Tally, differences, index_rows, manifest_bytes, manifest_path
from ocr_sprint.review.queue import submit
from ocr_sprint.review.schema import ERASABLE, PERMANENT, append_only, documents
from ocr_sprint.review.second_review import submit_second
from ocr_sprint.review.store import open_store
from ocr_sprint.review.verify_corpus import verify_corpus
from ocr_sprint.review.verify_database import verify_database
from ocr_sprint.review.verify_store import verify_anchors, verify_store
from ocr_sprint.tools.diff import main as diff
from ocr_sprint.tools.verify import main as verify


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def eventful(store):
    """`filled`, and all else that can happen to letters."""
    ids = filled(store)
    submit(store, "waits.pdf", b"%PDF-1.7 waits")
    store.undo(ids[2], by="reviewer-b")
    store.add_job(**new_job(3, {"header": {"perihal": "x", "satuan": "POLRES"}}), rerun=True)
    store.correct(ids[3], [Edit("set", PERIHAL, "y")], by="reviewer-a")
    store.approve(ids[3], by="reviewer-a")
    submit_second(store, ids[3], [], by="reviewer-c")
    erase(store, store.add_job(**new_job(77)), by="admin", reason="request 7")
    return ids


def found(store):
    return [str(fault) for fault in verify_store(store)]


# Stores.


def test_a_sound_store_has_no_faults(store):
    eventful(store)
    assert found(store) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_of_the_export_is_found(store, damage):
    ids = filled(store)
    by_hand(store, DAMAGE[damage][0])
    (fault,) = found(store)
    hit = ids[1] if damage in ("uncorrected job", "key added") else ids[0]
    assert fault.startswith(f"job {hit}: ")


def test_a_file_that_was_put_in_anothers_place_is_found(store):
    content = b"%PDF-1.7 as it was handed in"
    sha256 = sha256_hex(content)
    job_id = store.add_job(**(new_job(500) | {"document_sha256": sha256}), document=content)
    eventful(store)
    assert found(store) == []
    with writing(store.engine) as connection:
        own = documents.c.document_sha256 == sha256
        connection.execute(update(documents).where(own).values(content=b"%PDF-1.7 another"))
    (fault,) = found(store)
    assert fault.startswith(f"job {job_id}: its kept file is another")


# What no entry of a chain speaks of, and what is checked otherwise or not at all.
BESIDE = {"filename", "source_kind", "pages", "version", "created_at", "change_xid", "change_seq", "field_confidence"}
BESIDE |= {"evidence", "ocr_text", "changed_at", "seq", "job_seq", "archived_at"}


@pytest.mark.parametrize("name", ["jobs", "runs", "events", "approvals", "second_reviews", "archived_results"])
def test_any_other_value_in_any_column_is_found(store, name):
    """Each column of each row in turn holds something else, and each time that very letter is named."""
    eventful(store)
    key = "seq" if name == "jobs" else "job_seq"
    ids = {row["seq"]: row["job_id"] for row in rows_of(store, "jobs")}
    tried = 0
    for row in rows_of(store, name):
        for column, value in row.items():
            other = changed(value)
            if column in BESIDE or not put(store, name, key, row, column, other):
                continue
            faults = found(store)
            put(store, name, key, {**row, column: other}, column, value)
            named = ids[row[key]] + (" " if (name, column) == ("jobs", "job_id") else "")
            assert any(named in fault for fault in faults), (name, column, value, other)
            tried += 1
    assert tried >= 2
    assert found(store) == []


def put(store, name, key, row, column, value):
    """Write a value by hand; False when the database itself refuses it."""
    where = " AND ".join(f"{part} = {literal(row[part])}" for part in row if part in (key, "n", "run"))
    try:
        by_hand(store, f"UPDATE {name} SET {quoted(column)} = {literal(value)} WHERE {where}")
    except (sqlite3.IntegrityError, DBAPIError):
        return False
    return True


def quoted(column):
    return f'"{column}"'


def literal(value):
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("%", "%%") + "'"
    return "NULL" if value is None else str(value).upper() if isinstance(value, bool) else repr(value)


def changed(value):
    """Another value that the column could hold, and its checks let through."""
    special = {"set": "add", "add": "remove", "remove": "set", "approve": "revoke", "revoke": "approve"}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return special.get(value, "x") if value is None or value in special else value + " "


def test_rows_of_nobody_are_found(store):
    ids = eventful(store)
    by_hand(store, "DELETE FROM jobs WHERE seq = 1")
    faults = found(store)
    assert {fault.split(", and there are ")[1].split(" of it")[0] for fault in faults} == {
        "runs",
        "events",
        "approvals",
    }
    assert not any(job_id in fault for fault in faults for job_id in ids)


def test_what_was_erased_must_stay_away(store):
    ids = filled(store)
    columns = 'job_seq, job_id, erased_at, "by", change_xid, change_seq'
    by_hand(store, f"INSERT INTO tombstones ({columns}) VALUES (2, 'x', '2', 'x', 0, 99)")
    assert found(store) == [f"job {ids[1]}: it was erased, and it is there again; erase it once more"]


def test_a_proposal_to_mend_a_result_works(store):
    ids = filled(store)
    by_hand(store, DAMAGE["corrected field"][0])
    (fault,) = found(store)
    assert fault.endswith(f"set {PERIHAL} of the stored result back to what event 1 wrote, and all fits")
    by_hand(store, "UPDATE jobs SET result = replace(result, 'Razia', 'Patroli') WHERE seq = 1")
    assert found(store) == []
    by_hand(store, DAMAGE["other field"][0])
    assert "read the document again" in found(store)[0]
    store.add_job(**new_job(0), rerun=True)
    (fault,) = found(store)
    assert f"job {ids[0]}: the result of run 1, which was replaced, does not replay" in fault


def test_a_large_store_is_read_in_parts(new_url):
    with open_store(new_url("sqlite"), clock=Ticking()) as store:
        for number in range(450):
            store.add_job(**new_job(number))
        store.correct(store.add_job(**new_job(449)), [Edit("set", PERIHAL, "x")], by="reviewer-a")
        assert found(store) == []
        by_hand(
            store, "UPDATE events SET new_value = 'null'", "UPDATE jobs SET engine = 'x' WHERE seq IN (1, 200, 201)"
        )
        assert len(found(store)) == 4


# A corpus of another day as witness.


def forged(store):
    """A trail made shorter by somebody who knows how: the store is all of one piece afterwards."""
    by_hand(
        store,
        "DELETE FROM approvals WHERE job_seq = 1",
        "DELETE FROM events WHERE job_seq = 1 AND n = 2",
        "UPDATE jobs SET approved = FALSE, reviewed_by = NULL, reviewed_at = NULL WHERE seq = 1",
        "UPDATE jobs SET head = (SELECT hash FROM events WHERE job_seq = 1 AND n = 1) WHERE seq = 1",
        "UPDATE jobs SET result = replace(result, '77060000', '7706OOOO') WHERE seq = 1",
    )


def test_a_forged_trail_does_not_continue_the_old_one(store, url, tmp_path, capfd):
    ids = filled(store)
    corpus = tmp_path / "corpus.jsonl"
    write_corpus(store, corpus, ALL)
    store.correct(ids[3], [Edit("set", PERIHAL, "x")], by="reviewer-a")
    erase(store, ids[1], by="admin", reason="request 7")
    assert list(verify_anchors(store, manifest_path(corpus))) == []
    forged(store)
    assert found(store) == []
    (fault,) = verify_anchors(store, manifest_path(corpus))
    assert fault.job_id == ids[0]
    assert verify(["--store", url]) == 0
    assert verify(["--store", url, "--against", str(manifest_path(corpus))]) == 1
    said = capfd.readouterr()
    assert ids[0] in said.out
    assert "1 fault in the store" in said.err
    assert "; 1 erased, the last at 2025" in said.err


# Below the letters.

GUARDS = [(table, statement) for table in (*ERASABLE, *PERMANENT) for statement in range(3)]


@pytest.mark.parametrize(("table", "number"), GUARDS, ids=lambda part: getattr(part, "name", part))
def test_each_guard_is_missed(store, url, capfd, table, number):
    dialect = store.engine.dialect.name
    name = append_only(table, dialect)[number].split()[2]
    filled(store)
    assert list(verify_database(store)) == []
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER {name}" + ("" if dialect == "sqlite" else f" ON {table.name}"))
    (fault,) = verify_database(store)
    assert name in fault.problem
    assert verify(["--store", url]) == 1
    assert f"TRIGGER {name} is missing or altered" in capfd.readouterr().out


def test_a_guard_that_was_put_to_sleep_is_missed(store):
    with store.engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER events_no_delete")
            connection.exec_driver_sql(
                "CREATE TRIGGER events_no_delete BEFORE DELETE ON events WHEN 0 BEGIN SELECT 1; END"
            )
        else:
            connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER events_no_delete")
    assert ["events_no_delete" in fault.problem for fault in verify_database(store)] == [True]


def test_guards_that_do_nothing_are_missed(new_url):
    with open_store(new_url("postgresql")) as store:
        with store.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
            )
        (fault,) = verify_database(store)
        assert "a function of the triggers is missing or altered" in fault.problem


@pytest.mark.parametrize("column", ["ocr_text", "evidence", "field_confidence", "pages"])
def test_what_was_read_beside_the_result_is_proved(store, column):
    (first, *_) = filled(store)
    changed = {"ocr_text": "'SURAT TUGAS'", "pages": "7"}.get(column, "'[1]'")
    by_hand(store, f"UPDATE jobs SET {column} = {changed} WHERE job_id = '{first}'")
    (fault,) = verify_store(store)
    assert fault.job_id == first
    assert "its text, evidence, confidences or pages" in fault.problem


# Corpora.


@pytest.fixture(scope="module")
def corpus():
    """A corpus with every kind of line, as bytes."""
    with tempfile.TemporaryDirectory() as folder, open_store(f"sqlite:///{folder}/store.db", clock=Ticking()) as store:
        eventful(store)
        path = Path(folder) / "corpus.jsonl"
        write_corpus(store, path, ALL)
        return (
            path.read_bytes(),
            manifest_path(path).read_bytes(),
            (Path(folder) / "corpus.jsonl.index.tsv").read_bytes(),
        )


def laid(folder, lines, papers=b"", index=b""):
    path = folder / "corpus.jsonl"
    path.write_bytes(lines)
    for end, data in ((".manifest.json", papers), (".index.tsv", index)):
        if data:
            (folder / f"corpus.jsonl{end}").write_bytes(data)
    return path


def test_any_byte_that_is_changed_is_found(corpus, tmp_path):
    lines, papers, index = corpus
    random = Random(1)
    for _ in range(150):
        at = random.randrange(len(lines))
        other = lines[:at] + bytes([lines[at] ^ (1 << random.randrange(8))]) + lines[at + 1 :]
        assert verify_corpus(laid(tmp_path, other, papers, index)).problem_count
    assert verify_corpus(laid(tmp_path, lines, papers, index)).problem_count == 0


def test_without_papers_what_contradicts_itself_is_found(corpus, tmp_path):
    lines = corpus[0]
    assert verify_corpus(laid(tmp_path, lines)).problem_count == 0
    for old, new in [
        (b'"new_value":"Patroli"', b'"new_value":"Razia"'),
        (b'"old_value":null', b'"old_value":0'),
        (b'"field_path":"header.perihal"', b'"field_path":"header.x"'),
        (b'"initial_result":{', b'"initial_result":{"x":1,'),
        (b'"initial_result":{"header":{"perihal":null}', b'"initial_result":{"header":{"perihal":1}'),
        (b'"confidence":0.78}', b'"confidence":"0.78"}'),
        (b'"confidence":0.78}', b'"confidence":0.780}'),
        (b"\n", b"\r\n"),
        (b"\n", b"\n\n"),
        (b"\n", b""),
    ]:
        assert old in lines
        assert verify_corpus(laid(tmp_path, lines.replace(old, new, 1))).problem_count, (old, new)
    swapped = lines.splitlines(True)[::-1]
    assert verify_corpus(laid(tmp_path, b"".join(swapped))).problem_count == len(swapped) - 1


def test_a_corpus_verifies_in_each_of_its_forms(store, tmp_path):
    filled(store)
    for form in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet"):
        path = tmp_path / f"corpus.{form}"
        write_corpus(store, path, ALL, format="parquet" if form == "parquet" else "jsonl")
        report = verify_corpus(path)
        assert (report.lines, report.problems, report.flagged) == (5, (), 0), form
    write_corpus(store, tmp_path / "corpus.csv", ALL, format="csv")
    with pytest.raises(UsageError, match="CSV shows a corpus"):
        verify_corpus(tmp_path / "corpus.csv")
    whole = (tmp_path / "corpus.jsonl.gz").read_bytes()
    for cut in (whole[:-9], whole[: len(whole) // 2], b"no gzip"):
        (tmp_path / "corpus.jsonl.gz").write_bytes(cut)
        with pytest.raises(DataError, match="damaged after line"):
            verify_corpus(tmp_path / "corpus.jsonl.gz")


def test_filters_of_the_manifest_are_promises(store, tmp_path):
    filled(store)
    path = tmp_path / "corpus.jsonl"
    write_corpus(store, path, Filters(has_corrections=True))
    assert verify_corpus(path).problem_count == 0
    other = tmp_path / "other" / "corpus.jsonl"
    write_corpus(store, other, ALL)
    for name, problem in [("approved_only", "only approved letters"), ("has_corrections", "is of the other kind")]:
        papers = json.loads(manifest_path(other).read_text())
        papers["filters"][name] = True
        manifest_path(other).write_text(json.dumps(papers))
        assert problem in " ".join(map(str, verify_corpus(other).problems))


def test_the_command_says_what_is_wrong_and_ends_accordingly(store, url, tmp_path, capfd):
    filled(store)
    path = tmp_path / "corpus.jsonl"
    write_corpus(store, path)
    assert verify(["--corpus", str(path), "--strict"]) == 0
    assert verify(["--store", url, "--corpus", str(path)]) == 0
    shown, letters = store_name(store.engine.url), store.count()
    assert f"the store {shown} fits ({letters} letter{'s' * (letters != 1)}): " in capfd.readouterr().err
    by_hand(store, DAMAGE["corrected field"][0])
    assert verify(["--store", url]) == 1
    write_corpus(store, path)
    assert verify(["--corpus", str(path)]) == 0
    assert verify(["--corpus", str(path), "--strict"]) == 3
    path.write_bytes(path.read_bytes() + b"{}\n")
    capfd.readouterr()
    assert verify(["--corpus", str(path)]) == 1
    said = capfd.readouterr()
    assert "line 3: the line has not exactly the keys" in said.out
    assert "5 problems in 3 lines" in said.err or "4 problems in 3 lines" in said.err
    alone = tmp_path / "alone.jsonl"
    alone.write_bytes(b"{\n")
    assert verify(["--corpus", str(alone)]) == 1
    assert "alone.jsonl: 1 problem in 1 line\n" in capfd.readouterr().err
    assert verify(["--corpus", str(tmp_path / "none.jsonl")]) == 1
    assert verify(["--store", f"sqlite:///{tmp_path}/none.db"]) == 2


# Differences.

letters = st.dictionaries(st.integers(0, 40), st.sampled_from([b"a\n", b"b\n", b"c\n"]), max_size=20)


def kept(folder, name, content):
    """A corpus of made-up lines, by its manifest."""
    with (folder / f"{name}.index.tsv").open("wb") as file:
        tally = Tally(file)
        for number, line in sorted(content.items()):
            tally.add(f"2025-05-28T08:00:{number // 4:02}Z", f"{number:02}", line, None)
        totals = tally.totals()
    fields = {"corpus": name, "format": "jsonl", "index": f"{name}.index.tsv", "filters": {}, "as_of": None}
    fields |= {"taken_at": "", "pseudonymised": False, "store_id": "", "store_schema": "", "code_version": ""}
    path = folder / f"{name}.manifest.json"
    path.write_bytes(manifest_bytes(Manifest(**fields | totals)))
    return path


@given(letters, letters)
def test_differences_lead_from_one_corpus_to_the_other(old, new):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = list(differences(kept(folder, "old", old), kept(folder, "new", new)))
        patched = dict(old)
        for change, job_id in told:
            number = int(job_id)
            assert (change == "added") == (number not in old)
            assert (change == "removed") == (number not in new)
            patched.pop(number, None)
            if change != "removed":
                patched[number] = new[number]
        assert patched == new
        assert len(told) == len({job_id for _, job_id in told})
        assert [int(job_id) for _, job_id in told] == sorted(int(job_id) for _, job_id in told)


def test_a_corpus_and_its_manifest_say_the_same(store, tmp_path, capfd):
    ids = filled(store)
    old, new = tmp_path / "old.jsonl.gz", tmp_path / "new.jsonl"
    write_corpus(store, old)
    store.correct(ids[0], [Edit("set", PERIHAL, "Razia")], by="reviewer-b")
    store.approve(ids[2], by="reviewer-b")
    erase(store, ids[1], by="admin", reason="request 7")
    write_corpus(store, new)
    wanted = [("removed", ids[0]), ("removed", ids[1]), ("added", ids[2])]
    for left in (old, manifest_path(old)):
        for right in (new, manifest_path(new)):
            assert list(differences(left, right)) == wanted
    assert [row[:3] for row in index_rows(old)] == [row[:3] for row in index_rows(manifest_path(old))]
    old.unlink()  # only its papers were kept
    assert diff([str(manifest_path(old)), str(new)]) == 0
    said = capfd.readouterr()
    assert said.out == "".join(f"{change}\t{job_id}\n" for change, job_id in wanted)
    assert said.err.endswith(": 1 added, 0 changed, 2 removed\n")
    assert diff([str(old), str(new)]) == 1
    (tmp_path / "old.jsonl.gz.index.tsv").write_text("a\tb\n")
    assert diff([str(manifest_path(old)), str(new)]) == 1
    assert "is no row of an index" in capfd.readouterr().err
