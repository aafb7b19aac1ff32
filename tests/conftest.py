"""Stores on both backends. A machine without PostgreSQL fails the tests that need it; nothing is ever skipped."""

import os
import signal
from contextlib import ExitStack

import pytest
from command_samples import Run
from hypothesis import settings
from sqlalchemy.engine import make_url

from ocr_sprint.tools.cli import main
from postgres_server import new_database, postgres_server

BACKENDS = ("sqlite", "postgresql")

# Whoever is started in the background ignores Ctrl-C, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure; and in CI what passes depends on the commit alone, not on the examples of the day.
settings.register_profile("here", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def postgres_url():
    """The administrator's URL of a PostgreSQL server: OCR_SPRINT_TEST_PG_URL, or a server for this session."""
    named = os.environ.get("OCR_SPRINT_TEST_PG_URL")
    if named:
        yield make_url(named)
        return
    with postgres_server() as server:
        yield server.url


@pytest.fixture
def new_url(request, tmp_path):
    """A function that gives the URL of a fresh store: a file in `tmp_path`, or a database that goes with the test."""
    with ExitStack() as databases:
        count = 0

        def make(backend):
            nonlocal count
            count += 1
            if backend == "postgresql":
                return databases.enter_context(new_database(request.getfixturevalue("postgres_url")))
            return f"sqlite:///{tmp_path / ('store.db' if count == 1 else f'store-{count}.db')}"

        yield make


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def url(new_url, backend):
    """The URL of a fresh store, once for each backend."""
    return new_url(backend)


@pytest.fixture
def serve():
    """A function that starts a provider of language models on loopback, with the settings of tests/llm_mock.py."""
    from llm_mock import MockServer

    with ExitStack() as servers:
        yield lambda **settings: servers.enter_context(MockServer(**settings))


@pytest.fixture
def fictitious_keys(monkeypatch):
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "fictitious-key")


@pytest.fixture
def little_jitter(monkeypatch):
    """A thousandth of the labeller's jitter: what is tested is the count of calls, not the patience."""
    from ocr_sprint.ground_truth import label_decide

    original = label_decide.backoff
    monkeypatch.setattr(label_decide, "backoff", lambda *words: original(*words) / 1000)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit code, and what it said."""

    def call(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(map(str, words)))
        return code, capsys.readouterr().err.strip()

    return call
