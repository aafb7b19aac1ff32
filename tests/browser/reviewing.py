"""The review panel in a notebook, for one person and for several."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from lab import Lab, until
from playwright.sync_api import Locator

from ocr_sprint.api.app import create_app
from ocr_sprint.api.service import Settings
from ocr_sprint.review.store import Store

OPEN = """
from ocr_sprint.panels.review import review_panel
panel = review_panel("sqlite:///{name}.db", name="{by}")
panel
"""
SLOW = """
import time
from ocr_sprint.panels.desk import StoreDesk
from ocr_sprint.panels.review import ReviewPanel
from ocr_sprint.review.store import open_store

def slowly(session, message):
    time.sleep(0.3)
    session.handle(message)

panel = ReviewPanel(StoreDesk(open_store("sqlite:///{name}.db"), "{by}"), slowly)
panel
"""


SERVED = """
from pathlib import Path
from ocr_sprint.panels.review import review_panel
review_panel("{service}", token=Path("{by}.token").read_text())
"""
READY = ".ocr-sprint-review:is([data-painted], :has(.message))"


class Bench:
    """A review panel in a notebook, over a store that the test sees too."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.page = lab, lab.page

    def open(self, name: str, cell: str = OPEN, by: str = "reviewer-a", **words: str) -> Locator:
        self.lab.open(f"{name}-{by}", cell.format(name=name, by=by, **words), panel=READY)
        return self.panel()

    def panel(self) -> Locator:
        self.page.wait_for_selector(READY)
        return self.page.locator(".ocr-sprint-review")

    def field(self, path: str) -> Locator:
        return self.page.locator(f'.ocr-sprint-review [data-path="{path}"]')


@contextmanager
def served(store: Store, folder: Path) -> Iterator[str]:
    """The service over a store, on loopback; its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(store, Settings(folder)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
