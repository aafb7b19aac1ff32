"""One JupyterLab and one browser for all browser tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from lab import browser, lab_server
from playwright.sync_api import BrowserContext, Page

AXE = "4.14.1"


@pytest.fixture(scope="session", autouse=True)
def ended_in_order() -> None:
    """A test run that is told to end takes its server and its browser with it."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def address(root: Path) -> Iterator[str]:
    with lab_server(root) as found:
        yield found


@pytest.fixture(scope="session")
def context(root: Path) -> Iterator[BrowserContext]:
    with browser(root / ".profile") as found:
        yield found


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page whose errors fail its test, and that must not ask another host for anything."""
    page = context.new_page()
    errors: list[str] = []
    hosts: set[str | None] = set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    yield page
    page.close(run_before_unload=False)
    assert errors == []
    assert hosts - {None, ""} == {"127.0.0.1"}


@pytest.fixture(scope="session")
def axe() -> str:
    """The program of axe-core, from the npm registry when it is not in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ocr_sprint" / f"axe-core-{AXE}"
    program = cache / "package" / "axe.min.js"
    if not program.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"axe-core@{AXE}"], cwd=cache, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["tar", "xzf", f"axe-core-{AXE}.tgz"], cwd=cache, check=True)
    return program.read_text()
