"""Corpora as files and streams: one hash by every way, whole or as before, and nothing left open."""

import datetime
import gc
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from export_samples import DAMAGE, PERIHAL, by_hand, filled, rows_of
from review_samples import Ticking, new_job
from small_disk import ENVIRONMENT, limited, on_a_small_disk
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

import ocr_sprint.review
from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError, FlaggedError
from ocr_sprint.core.files import raw_lines
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.export import blocks, export_lines, write_corpus
from ocr_sprint.review.filters import ALL, APPROVED, Filters
from ocr_sprint.review.formats import parquet_lines
from ocr_sprint.review.history import past_queries
from ocr_sprint.review.manifest import index_path, manifest_path, read_manifest
from ocr_sprint.review.pseudonyms import make_key
from ocr_sprint.review.samples import sample_queries, samples
from ocr_sprint.review.schema import metadata
from ocr_sprint.review.store import open_store
from ocr_sprint.review.verify_corpus import verify_corpus
from ocr_sprint.tools.export_ground_truth import main

TOOL = [sys.executable, "-m", "ocr_sprint.tools.export_ground_truth"]


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def many(store, count):
    """A store whose corpus is larger than any buffer."""
    for number in range(count):
        result = {"header": {"perihal": "x" * 20_000}, "personel": []}
        store.add_job(**new_job(number, result))


def beside(path):
    """What lies in a corpus's folder under its name, apart from the store."""
    return {file.name.removeprefix(path.name) for file in path.parent.glob(f"{path.name}*")}


PAPERS = {"", ".manifest.json", ".index.tsv"}

# One corpus, one hash.


def by_every_way(url, folder, moment):
    """The hash of the same corpus by each way out of one store."""
    found = {}
    with open_store(url, create=False) as store:
        found["stream"] = sha256_hex(b"".join(export_lines(store, ALL)))
        found["blocks"] = sha256_hex(b"".join(blocks(export_lines(store, ALL), 1000)))
        found["as of"] = sha256_hex(b"".join(export_lines(store, ALL, as_of=moment)))
        for end in ("", ".gz", ".zst"):
            path = folder / f"notebook.jsonl{end}"
            said = write_corpus(store, path, ALL).sha256
            found[f"notebook{end}"] = sha256_hex(b"".join(raw_lines(path)))
            assert said == found[f"notebook{end}"]
        write_corpus(store, folder / "c.parquet", ALL, format="parquet")
        found["parquet"] = sha256_hex(b"".join(parquet_lines(folder / "c.parquet")))
        assert read_manifest(manifest_path(folder / "c.parquet")).sha256 == found["parquet"]
        assert write_corpus(store, folder / "c.csv", ALL, format="csv").sha256 == found["parquet"]
    words = ["--store", url, "--no-approved-only"]
    found["pipe"] = sha256_hex(subprocess.run([*TOOL, *words], capture_output=True, env=ENVIRONMENT, check=True).stdout)
    assert main([*words, "--out", str(folder / "cli.jsonl")]) == 0
    found["file"] = sha256_hex((folder / "cli.jsonl").read_bytes())
    return found


def test_one_corpus_has_one_hash_by_every_way(new_url, tmp_path):
    """Notebook, command, pipe, past, compressed, Parquet; SQLite and PostgreSQL."""
    hashes = set()
    for backend in ("sqlite", "postgresql"):
        url = new_url(backend)
        folder = tmp_path / backend
        folder.mkdir()
        with open_store(url, clock=Ticking()) as store:
            ids = filled(store)
            store.undo(ids[2], by="reviewer-a")
            store.add_job(
                **new_job(1, {"header": {"perihal": "ä\u0301 \u0000 \u2028 😀", "confidence": 1.0}}), rerun=True
            )
            store.correct(ids[1], [Edit("set", "header.confidence", 1)], by="reviewer-b", reason='"é"\n')
            latest = max(job.changed_at for job in store.jobs())
        found = by_every_way(url, folder, datetime.datetime.fromisoformat(latest))
        assert len(found) == 9
        hashes |= set(found.values())
    assert len(hashes) == 1


# Whole, or as before.


def test_a_file_is_whole_or_as_before(store, tmp_path):
    filled(store)
    corpus = tmp_path / "corpus.jsonl"
    written = write_corpus(store, corpus)
    plain = corpus.read_bytes()
    assert (written.lines, written.sha256, written.bytes, written.drifts) == (2, sha256_hex(plain), len(plain), ())
    assert plain == b"".join(export_lines(store))
    assert write_corpus(store, tmp_path / "corpus.jsonl.gz").sha256 == written.sha256
    assert gzip.decompress((tmp_path / "corpus.jsonl.gz").read_bytes()) == plain
    before = {file: file.read_bytes() for file in tmp_path.glob("corpus*")}

    by_hand(store, DAMAGE["corrected field"][0])
    with pytest.raises(FlaggedError, match="1 of 2 letters do not replay"):
        write_corpus(store, corpus, strict=True)
    assert {file: file.read_bytes() for file in tmp_path.glob("*corpus*")} == before
    assert len(rows_of(store, "exports")) == 2
    flagged = write_corpus(store, corpus)
    assert (flagged.drift_count, flagged.drifts[0].reason) == (1, "value_mismatch")
    assert verify_corpus(corpus).flagged == 1
    assert beside(corpus) == PAPERS | {".gz", ".gz.manifest.json", ".gz.index.tsv"}


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "csv"])
def test_a_full_disk_leaves_the_previous_file(new_url, tmp_path, form):
    url = new_url("sqlite")
    folder = tmp_path / "corpora"
    with open_store(url) as store:
        filled(store)
        path = folder / f"corpus.{form}"
        kind = form if form in ("parquet", "csv") else "jsonl"
        write_corpus(store, path, format=kind)
        before = {file: file.read_bytes() for file in folder.iterdir()}
        for number in range(100, 300):
            noise = os.urandom(4_000).hex()
            job_id = store.add_job(**new_job(number, {"header": {"perihal": None}}))
            store.correct(job_id, [Edit("set", PERIHAL, noise)], by="reviewer-a")
            store.approve(job_id, by="reviewer-a")
    words = [*TOOL, "--store", url, "--out", str(path), "--format", kind]
    for size in (1_000, 100_000, 300_000):  # too little for the store itself, then for the corpus
        done = subprocess.run(words, capture_output=True, env=ENVIRONMENT, preexec_fn=limited(size), check=False)
        said = done.stderr.decode()
        assert done.returncode == 1, said
        assert ("cannot be used: disk I/O error" if size == 1_000 else "was not written, what was there stays") in said
        assert len(said.splitlines()) == 1
        assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert subprocess.run(words, capture_output=True, env=ENVIRONMENT, check=False).returncode == 0
    assert read_manifest(manifest_path(path)).lines == 202


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet", "csv.zst"])
def test_a_disk_that_fills_up_leaves_the_previous_file(new_url, tmp_path, form):
    url, folder, disk = new_url("sqlite"), tmp_path / "corpora", tmp_path / "disk"
    kind = form.split(".")[0]
    words = [*TOOL, "--store", url, "--no-approved-only", "--format", kind, "--out"]
    with open_store(url) as store:
        filled(store)
        write_corpus(store, folder / f"corpus.{form}", Filters(approved_only=False), format=kind)
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        again = on_a_small_disk(folder, disk, [*words, str(disk / f"corpus.{form}")])
        assert (again.returncode, {file.name: file.read_bytes() for file in folder.iterdir()}.keys()) == (
            0,
            before.keys(),
        )
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        for number in range(100, 140):
            store.add_job(**new_job(number, {"header": {"perihal": os.urandom(12_000).hex()}}))
    done = on_a_small_disk(folder, disk, [*words, str(disk / f"corpus.{form}")])
    said = done.stderr.decode()
    assert done.returncode == 1, said
    begins = f"ocr_sprint export_ground_truth: {disk}/corpus.{form} was not written, what was there stays: "
    assert said.removeprefix(begins) in ("No space left on device\n", "File too large\n")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_device_that_is_full_is_one_line(store, url, capfd):
    filled(store)
    assert main(["--store", url, "--out", "/dev/full"]) == 1
    assert "No space left on device" in capfd.readouterr().err


def test_a_kill_leaves_the_previous_file(new_url, tmp_path):
    url = new_url("sqlite")
    path = tmp_path / "corpora" / "corpus.jsonl.gz"
    with open_store(url) as store:
        filled(store)
        write_corpus(store, path)
        before = {file: file.read_bytes() for file in path.parent.iterdir()}
        many(store, 400)
    words = [*TOOL, "--store", url, "--out", str(path), "--no-approved-only"]
    killed = 0
    for _ in range(4):
        with subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE) as process:
            parts = []
            while not parts and process.poll() is None:
                parts = [part for part in path.parent.glob(".corpus.jsonl.gz.????????.part") if part.stat().st_size]
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        if process.returncode == -signal.SIGKILL:
            assert {file: file.read_bytes() for file in before} == before
    assert killed
    assert subprocess.run(words, capture_output=True, env=ENVIRONMENT, check=False).returncode == 0
    assert verify_corpus(path).problems == ()


def test_an_interrupted_export_leaves_the_previous_file(store, tmp_path):
    """Whatever goes wrong on the way, also where nobody thought of it."""
    filled(store)
    path = tmp_path / "corpora" / "corpus.jsonl"
    write_corpus(store, path)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def fails(line, seen=[]):  # noqa: B006  # counts its calls
        seen.append(line)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return line

    with pytest.raises(KeyboardInterrupt):
        write_corpus(store, path, transform=fails)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    assert store.engine.pool.checkedout() == 0


def test_papers_that_are_of_another_corpus_are_noticed(store, tmp_path):
    """The one moment that no file system makes one: the corpus is in its place, and the power fails."""
    filled(store)
    path = tmp_path / "corpus.jsonl"
    write_corpus(store, path)
    papers = manifest_path(path).read_bytes()
    write_corpus(store, path, ALL)
    manifest_path(path).write_bytes(papers)
    with pytest.raises(DataError, match="is not the index that its manifest names"):
        verify_corpus(path)


# Records, manifests, formats.


def test_every_export_is_on_record(store, url, tmp_path, capfdbinary):
    filled(store)
    write_corpus(store, tmp_path / "a.jsonl", Filters(has_corrections=True), actor="token-1")
    assert main(["--store", url, "--limit", "1"]) == 0
    line = capfdbinary.readouterr().out
    assert main(["--store", url, "--out", str(tmp_path / "b.parquet"), "--format", "parquet"]) == 0
    first, second, third = rows_of(store, "exports")
    assert [row["via"] for row in (first, second, third)] == ["notebook", "cli", "cli"]
    assert [row["lines"] for row in (first, second, third)] == [1, 1, 2]
    assert (first["actor"], second["actor"]) == ("token-1", None)
    assert second["sha256"] == sha256_hex(line)
    assert json.loads(first["filters"])["has_corrections"] is True
    assert json.loads(third["filters"])["format"] == "parquet"


def test_a_manifest_says_what_was_written(store, tmp_path):
    ids = filled(store)
    path = tmp_path / "corpus.jsonl.zst"
    written = write_corpus(store, path, Filters(False, limit=4))
    assert read_manifest(manifest_path(path)) == written
    assert (written.corpus, written.index) == ("corpus.jsonl.zst", "corpus.jsonl.zst.index.tsv")
    rows = [row.split("\t") for row in index_path(path).read_text().splitlines()]
    heads = {row["job_id"]: row["head"] for row in rows_of(store, "jobs")}
    assert [row[1] for row in rows] == ids[:4]
    assert [row[3] for row in rows] == [heads[job_id] for job_id in ids[:4]]
    assert written.heads_sha256 == sha256_hex("".join(f"{row[3]}\n" for row in rows).encode())
    assert [row[2] for row in rows] == [sha256_hex(raw) for raw in raw_lines(path)]
    assert written.filters["limit"] == 4
    (store_id,) = [row["value"] for row in rows_of(store, "properties") if row["name"] == "store_id"]
    assert written.store_id == store_id


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_papers_show_no_value_of_a_letter(store, tmp_path, damage):
    filled(store)
    by_hand(store, DAMAGE[damage][0])
    path = tmp_path / "corpus.jsonl"
    write_corpus(store, path, ALL)
    papers = manifest_path(path).read_text() + index_path(path).read_text()
    assert read_manifest(manifest_path(path)).drift_count == 1
    for value in ("Patroli", "Razia", "7706", "8001OOOI", "80010001", "77060000", "reviewer"):
        assert value not in re.sub(r"[0-9a-f]{64}|[0-9a-f-]{36}", "", papers)


def test_a_pseudonymised_corpus_names_nobody_and_replays(store, url, tmp_path, capfd):
    person = {"nama": "BUDI SANTOSO", "nrp": "77060000"}
    job_id = store.add_job(**new_job(1, {"header": {"perihal": None}, "personel": [person]}))
    store.correct(job_id, [Edit("set", "personel[0].nrp", "77060001")], by="Aiptu Wibowo")
    store.approve(job_id, by="Aiptu Wibowo")
    key, path = tmp_path / "key.txt", tmp_path / "corpus.jsonl"
    make_key(key)
    assert main(["--store", url, "--out", str(path), "--pseudonymise", str(key)]) == 0
    text = path.read_text()
    for name in ("BUDI", "SANTOSO", "77060000", "77060001", "Wibowo"):
        assert name not in text
    papers = read_manifest(manifest_path(path))
    assert (papers.pseudonymised, papers.heads_sha256) == (True, None)
    assert all(row.endswith("\t-") for row in index_path(path).read_text().splitlines())
    assert verify_corpus(path).problems == ()
    capfd.readouterr()
    assert main(["--store", url, "--pseudonymise", str(key)]) == 0
    assert capfd.readouterr().out == text


def test_parquet_and_csv_need_a_file(store, url, capfd):
    filled(store)
    for form in ("parquet", "csv"):
        assert main(["--store", url, "--format", form]) == 2
        assert f"--format {form} needs a file: add --out corpus.{form}" in capfd.readouterr().err


# Streams that end early.


def open_transactions(store):
    """Transactions that a store's connections hold open."""
    if store.engine.dialect.name == "sqlite":
        return store.engine.pool.checkedout()
    with store.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        busy = connection.exec_driver_sql(f"{query} AND state <> 'idle'").scalar_one()
    return busy + store.engine.pool.checkedout()


def in_a_thread(deed):
    worker = threading.Thread(target=deed)
    worker.start()
    worker.join()


@pytest.mark.parametrize("as_of", [False, True])
def test_a_stream_that_is_closed_leaves_nothing_open(store, as_of):
    """A web server begins it in one thread, goes on in a second and closes it in a third."""
    many(store, 40)
    moment = store.clock.now.replace(year=2030) if as_of else None
    for pulled in (0, 1, 2, 39, 40):
        lines = export_lines(store, ALL, as_of=moment)
        for _ in range(pulled):
            in_a_thread(lambda lines=lines: next(lines))
        in_a_thread(lines.close)
        assert open_transactions(store) == 0
    for _ in range(20):  # and nobody who forgets to close it keeps more than it took
        next(export_lines(store, ALL, as_of=moment))
    gc.collect()
    assert open_transactions(store) == 0
    walk = samples(store, ALL)
    next(walk)
    in_a_thread(walk.close)
    assert open_transactions(store) == 0
    assert sum(1 for _ in export_lines(store, ALL, as_of=moment)) == 40


def test_a_reader_does_not_keep_writers_waiting(store):
    ids = filled(store)
    with closing(export_lines(store, ALL)) as lines:
        next(lines)
        began = time.monotonic()
        store.correct(ids[3], [Edit("set", PERIHAL, "Razia")], by="reviewer-b")
        assert time.monotonic() - began < 4


def test_a_server_that_goes_away_is_one_line(new_url):
    with open_store(new_url("postgresql")) as store:
        many(store, 300)
        lines = export_lines(store, ALL)
        next(lines)
        with store.engine.connect() as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            connection.exec_driver_sql(f"{query} AND pid <> pg_backend_pid()")
        with pytest.raises(DataError, match=r"cannot be (read|used)"):
            list(lines)
        assert store.engine.pool.checkedout() == 0
        assert sum(1 for _ in export_lines(store, ALL)) == 300


# Order.


def test_every_text_is_compared_byte_by_byte(new_url):
    """A database whose own collation is another one sorts "a-b" after "aa": every text column names its collation."""
    with open_store(new_url("postgresql")) as store, store.engine.connect() as connection:
        query = """SELECT c.relname, a.attname, co.collname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation co ON co.oid = a.attcollation
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') AND a.attnum > 0
            AND t.typcollation <> 0 AND NOT a.attisdropped"""
        columns = [row for row in connection.exec_driver_sql(query) if not row[0].startswith("alembic_version")]
    tables = {table for table, _, _ in columns}
    assert set(metadata.tables) - {"tasks"} <= tables | {"tasks"}
    assert len(columns) > 80
    assert [column for column in columns if column[2] != "C"] == []


@pytest.mark.parametrize("queries", [sample_queries(ALL), sample_queries(Filters(limit=3)), past_queries(ALL, "2025")])
def test_what_orders_an_export_carries_the_collation(queries):
    for query in queries:
        texts = [column for column in query._order_by_clauses if isinstance(column.type, Text)]
        assert [column.name for column in texts] == ["created_at", "job_id"]
        assert {column.type.dialect_impl(postgresql.dialect()).collation for column in texts} == {"C"}


def test_no_statement_orders_by_anything_but_columns():
    """A function or a cast would escape the collation that its columns carry."""
    found = 0
    for path in Path(ocr_sprint.review.__file__).parent.rglob("*.py"):
        code = path.read_text()
        for order in re.findall(r"\.order_by\(((?:[^()]|\([^()]*\))*)\)", code):
            found += 1
            assert not re.search(r"\b(cast|func|text|literal_column|collate)\b", order), (path.name, order)
        for order in re.findall(r"ORDER BY ([^\"']*)", code):
            found += 1
            assert re.match(r"[a-z_., ]+($|\)|\n| LIMIT)", order), (path.name, order)
    assert found > 20


def test_strange_ids_come_in_the_order_of_their_bytes(store):
    filled(store)
    odd = ["a-b", "A-B", "a-c", "ab", "b", "B", "é", "_", "~"]
    for seq, name in enumerate(odd[:5], 1):
        by_hand(store, f"UPDATE jobs SET job_id = '{name}', created_at = '2025-01-01T00:00:00Z' WHERE seq = {seq}")
    lines = [json.loads(line)["job_id"] for line in export_lines(store, ALL)]
    assert lines == sorted(odd[:5], key=str.encode)
    assert [json.loads(line)["job_id"] for line in export_lines(store, APPROVED)] == ["A-B", "a-b"]
