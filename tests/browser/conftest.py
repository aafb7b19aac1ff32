"""One JupyterLab and one browser for all browser tests. What tests do with them stands in lab.py."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from lab import Lab, browser, chromium, lab_server, watched
from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright


def pytest_configure() -> None:
    """Without a browser nothing is tested, and that is no success."""
    chromium()


@pytest.fixture(scope="session", autouse=True)
def ended_in_order() -> None:
    """A test run that is told to end takes its server and its browser with it."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the notebooks, where kernels work too."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def address(root: Path) -> Iterator[str]:
    """JupyterLab's address, with its token."""
    with lab_server(root) as found:
        yield found


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="session")
def context(playwright: Playwright, root: Path) -> Iterator[BrowserContext]:
    """The browser of all tests."""
    with browser(playwright, root / ".profile") as found:
        yield found


@pytest.fixture(autouse=True)
def kernels(address: str) -> Iterator[None]:
    """Whatever kernels a test started end with it."""
    yield
    base, _, token = address.partition("/?token=")
    headers = {"Authorization": f"token {token}"}
    with urlopen(Request(f"{base}/api/sessions", headers=headers)) as answer:
        sessions = json.load(answer)
    for session in sessions:
        urlopen(Request(f"{base}/api/sessions/{session['id']}", headers=headers, method="DELETE")).close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page whose errors fail its test, and that must not ask another host for anything."""
    with watched(context) as found:
        yield found


@pytest.fixture
def lab(page: Page, root: Path, address: str) -> Lab:
    """A page of JupyterLab: `lab.open(name, *cells, panel=...)`, `lab.page`, `lab.root`."""
    return Lab(page, root, address)


@pytest.fixture
def another(playwright: Playwright, root: Path, address: str, tmp_path: Path) -> Iterator[Callable[[], Lab]]:
    """A function that starts a further browser with a profile of its own: another person at another machine."""
    with ExitStack() as stack:

        def start() -> Lab:
            profile = tmp_path / f"profile-{len(list(tmp_path.glob('profile-*')))}"
            found = stack.enter_context(browser(playwright, profile))
            return Lab(stack.enter_context(watched(found)), root, address)

        yield start
