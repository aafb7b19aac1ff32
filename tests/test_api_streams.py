"""Exports over HTTP: the same bytes by every way, no trace of clients who hang up, and nobody else has to wait."""

import hashlib
import json
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from random import Random

import httpx
import pytest
import uvicorn
from api_samples import TRUTH, client_of, fill, service, tokens_of
from review_samples import new_job
from sqlalchemy import create_engine, make_url, select, text

from ocr_sprint.api import ground_truth
from ocr_sprint.core.files import file_sha256
from ocr_sprint.review.database import reading
from ocr_sprint.review.export import export_lines
from ocr_sprint.review.schema import exports
from ocr_sprint.tools.export_ground_truth import main as command

try:
    from compression import zstd
except ImportError:
    from backports import zstd

EXPORT = f"{TRUTH}/export"


@contextmanager
def running(app):
    """A real server for an app, in a thread; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


def records(store):
    with reading(store.engine) as connection:
        query = select(exports.c.via, exports.c.lines, exports.c.sha256, exports.c.actor, exports.c.filters)
        return connection.execute(query.order_by(exports.c.seq)).all()


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"approved_only": "false"},
        {"approved_only": "false", "has_corrections": "true"},
        {"has_corrections": "false"},
        {"approved_only": "false", "limit": "3"},
        {"limit": "0"},
        {"approved_only": "false", "since": "2025-05-28T08:06:00Z"},
        {"approved_only": "false", "until": "2025-05-28T08:06:00Z", "limit": "2"},
        {"approved_only": "false", "since": "2025-05-28T15:02:00+07:00", "until": "2025-05-28T08:09:30Z"},
        {"approved_only": "false", "as_of": "2025-05-28T08:05:00Z"},
    ],
)
def test_the_same_bytes_by_every_way(url, tmp_path, wanted):
    flags = []
    for name, value in wanted.items():
        flag = name.replace("_", "-")
        flags += (
            [f"--{flag}" if value == "true" else f"--no-{flag}"] if value in ("true", "false") else [f"--{flag}", value]
        )
    out = tmp_path / "corpus.jsonl"
    with service(url, tmp_path) as (store, app):
        fill(store, 9)
        assert command(["--out", str(out), "--store", url, *flags]) == 0
        expected = out.read_bytes()
        client = client_of(app)
        answers = {}
        for encoding in ("identity", "zstd", "gzip"):
            with client.stream("GET", EXPORT, params=wanted, headers={"Accept-Encoding": encoding}) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("application/x-ndjson")
                assert answer.headers.get("content-encoding", "identity") == encoding
                assert answer.headers["vary"] == "Accept-Encoding"
                answers[encoding] = b"".join(answer.iter_raw())
        assert answers["identity"] == expected
        assert zstd.decompress(answers["zstd"]) == expected
        assert zlib.decompress(answers["gzip"], wbits=31) == expected
        body = {
            name: json.loads(value) if value in ("true", "false", "0", "2", "3") else value
            for name, value in wanted.items()
        }
        frozen = client.post(f"{TRUTH}/snapshots", json=body).json()
        assert (frozen["sha256"], frozen["lines"]) == (file_sha256(out), expected.count(b"\n"))
        assert client.get(f"{TRUTH}/snapshots/{frozen['id']}/corpus.jsonl").content == expected
        recorded = records(store)
        assert [row.via for row in recorded] == ["cli", "http", "http", "http", "http"]
        assert {(row.lines, row.sha256, row.filters) for row in recorded} == {
            (expected.count(b"\n"), file_sha256(out), recorded[0].filters)
        }


def test_sqlite_and_postgresql_send_the_same_bytes(new_url, tmp_path):
    sums = set()
    for backend in ("sqlite", "postgresql"):
        with service(new_url(backend), tmp_path / backend) as (store, app):
            fill(store, 9)
            sums.add(hashlib.sha256(client_of(app).get(EXPORT, params={"approved_only": "false"}).content).hexdigest())
    assert len(sums) == 1


def large(store, letters=120, kilobytes=100):
    """A corpus that no socket can hold, and that no compression makes small."""
    random = Random(7)
    for number in range(letters):
        text = random.randbytes(kilobytes * 512).hex()
        job_id = store.add_job(**new_job(number, {"header": {"perihal": None}, "pertimbangan": text}))
        store.approve(job_id, by="reviewer-a")


def test_a_snapshot_is_resumed_after_a_cut(url, tmp_path):
    with service(url, tmp_path) as (store, app):
        large(store, 10)
        with running(app) as address, httpx.Client(base_url=address, timeout=30) as client:
            frozen = client.post(f"{TRUTH}/snapshots", json={}).json()
            corpus, etag = f"{TRUTH}/snapshots/{frozen['id']}/corpus.jsonl", f'"{frozen["sha256"]}"'
            got, cuts = b"", 0
            while len(got) < frozen["bytes"]:
                headers = {"Range": f"bytes={len(got)}-", "If-Range": etag} if got else {}
                with client.stream("GET", corpus, headers=headers) as answer:
                    assert (answer.status_code, answer.headers["etag"]) == (206 if got else 200, etag)
                    part = 0
                    for chunk in answer.iter_raw():
                        got += chunk
                        part += len(chunk)
                        if part > 500_000:  # the line breaks
                            cuts += 1
                            break
            assert cuts >= 2
            assert hashlib.sha256(got).hexdigest() == frozen["sha256"]
            # Letters that come in meanwhile change the live corpus and not the frozen one.
            store.approve(store.add_job(**new_job(9_999)), by="reviewer-a")
            assert hashlib.sha256(client.get(corpus).content).hexdigest() == frozen["sha256"]
            assert client.head(corpus).headers["content-length"] == str(frozen["bytes"])
            done = client.get(corpus, headers={"Range": f"bytes={frozen['bytes']}-"})
            assert (done.status_code, done.headers["content-range"]) == (416, f"bytes */{frozen['bytes']}")
            assert done.json()["error"]["code"] == "range_not_satisfiable"
            stale = client.get(corpus, headers={"Range": "bytes=10-", "If-Range": '"0"'})
            assert (stale.status_code, len(stale.content)) == (200, frozen["bytes"])
            tail = client.get(corpus, headers={"Range": "bytes=-10"})
            assert (tail.status_code, tail.content) == (206, got[-10:])


def open_transactions(store):
    """How many transactions the database itself sees, beside the one that asks."""
    if store.engine.dialect.name == "sqlite":
        # A writer cannot empty the log while anybody reads an older state of the database.
        store.add_job(**new_job(int(time.monotonic_ns())))
        with closing(store.engine.raw_connection()) as connection:
            busy, _, _ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return busy + store.engine.pool.checkedout()
    engine = create_engine(make_url(str(store.engine.url.render_as_string(hide_password=False))))
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect() as connection:
        count = connection.execute(text(f"{query} AND xact_start IS NOT NULL")).scalar_one()
    engine.dispose()
    return count


@contextmanager
def slow_client(address, encoding="identity", token=None):
    """A client that has asked for the corpus and takes in only what it reads; gives its socket and the first bytes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(30)
        client.connect((host, int(port)))
        lines = [f"GET {EXPORT} HTTP/1.1", f"Host: {host}:{port}", f"Accept-Encoding: {encoding}"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        yield client


def drop(address, after, encoding):
    """Start a download, read so many bytes, and hang up without a word."""
    with slow_client(address, encoding) as client:
        if after:
            assert client.recv(12) == b"HTTP/1.1 200"
        while after > 0:
            after -= len(client.recv(65_536)) or after
        if encoding == "identity":  # a reset, as when a machine is switched off
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def wait_until(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 20 seconds")


def test_a_hundred_dropped_clients_leave_no_transaction(url, tmp_path):
    with service(url, tmp_path, downloads=200, all_downloads=200) as (store, app):
        large(store)
        gate = app.state.service.gate
        with running(app) as address:
            with slow_client(address) as reader:
                assert reader.recv(12) == b"HTTP/1.1 200"
                assert open_transactions(store) >= 1, "this test can see an open transaction"
                assert gate.running() == 1
            for number in range(100):
                drop(address, (0, 1, 300_000, 700_000)[number % 4], ("identity", "gzip")[number % 2])
            wait_until(lambda: gate.running() == 0)
            assert open_transactions(store) == 0
            whole = httpx.get(f"{address}{EXPORT}").content
            assert whole == b"".join(export_lines(store))
        cut = [row for row in records(store) if row.lines < 120]
        assert cut, "what was cut short is on record as far as it was read"


def test_a_deadline_ends_a_download_that_nobody_reads(url, tmp_path):
    with service(url, tmp_path, export_seconds=0.5) as (store, app):
        large(store)
        with running(app) as address:
            gate = app.state.service.gate
            with slow_client(address) as client:
                wait_until(lambda: gate.running() == 1)
                wait_until(lambda: gate.running() == 0)
                got = b""
                while chunk := client.recv(2**20):
                    got += chunk
            assert not got.endswith(b"0\r\n\r\n"), "a corpus that was cut must not look whole"
            assert open_transactions(store) == 0


def test_an_export_that_cannot_begin_is_an_error_and_no_empty_corpus(url, tmp_path):
    with service(url, tmp_path) as (store, app):
        fill(store, 3)
        client = client_of(app)
        if store.engine.dialect.name == "sqlite":
            with closing(store.engine.raw_connection()) as connection:
                connection.cursor().execute("ALTER TABLE events RENAME TO moved")
        else:
            with store.engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE events RENAME TO moved")
        answer = client.get(EXPORT)
        assert answer.status_code in (500, 503)
        assert "moved" not in answer.text and "SELECT" not in answer.text
        assert answer.json()["error"]["code"] in ("internal", "unavailable")


def test_each_caller_has_a_share_of_the_downloads(url, tmp_path):
    with service(url, tmp_path, downloads=1, all_downloads=2, export_role="viewer") as (store, app):
        large(store)
        tokens = tokens_of(store)
        with running(app) as address:

            def start(role):
                return slow_client(address, token=tokens[role])

            def head(client):
                return client.recv(4096).decode().lower()

            with start("viewer") as first:
                assert head(first).startswith("http/1.1 200")
                with start("viewer") as second:
                    refused = head(second)
                    assert refused.startswith("http/1.1 429") and "retry-after: 5" in refused
                with start("admin") as other:
                    assert head(other).startswith("http/1.1 200")
                    with start("reviewer") as third:
                        assert head(third).startswith("http/1.1 503")


def test_others_are_answered_while_exports_wait_for_the_database(url, tmp_path, monkeypatch):
    answered, waited = threading.Event(), []

    def slow_lines(store, *arguments, **options):
        for line in export_lines(store, *arguments, **options):
            waited.append(answered.wait(20))
            yield line

    monkeypatch.setattr(ground_truth, "export_lines", slow_lines)
    with service(url, tmp_path, downloads=3) as (store, app):
        fill(store)
        with running(app) as address, ThreadPoolExecutor(3) as threads:
            exports = [threads.submit(httpx.get, f"{address}{EXPORT}", timeout=30) for _ in range(3)]
            wait_until(lambda: app.state.service.gate.running() == 3)
            for path in ("/health", "/api/v1/jobs", f"{TRUTH}/stats", "/metrics"):
                assert httpx.get(f"{address}{path}", timeout=30).status_code == 200
            assert httpx.post(f"{address}/api/v1/jobs", files={"file": ("a.pdf", b"%PDF-1.7")}).status_code == 202
            answered.set()
            assert {future.result().content for future in exports} == {b"".join(export_lines(store))}
        assert all(waited), "an export was not held up until the others had been answered"
