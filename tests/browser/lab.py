"""A real JupyterLab and a real browser, both on this machine only."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import BrowserContext, Page, sync_playwright

WAIT = 120  # seconds, for machines that are busy with other things
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def lab_server(root: Path, theme: str = "JupyterLab Light") -> Iterator[str]:
    """JupyterLab on a folder; gives the address with its token."""
    home = root / ".home"
    config = home / "config" / "labconfig"
    config.mkdir(parents=True)
    themes = {"@jupyterlab/apputils-extension:themes": {"theme": theme, "adaptive-theme": False}}
    (config / "default_setting_overrides.json").write_text(json.dumps(SETTINGS | themes))
    token, port = secrets.token_hex(16), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"JUPYTER_TOKEN": token, "JUPYTER_CONFIG_DIR": str(home / "config"), "HOME": str(home)}
    line = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    line += [
        f"--notebook-dir={root}",
        "--expose-app-in-browser",
        "--LabApp.news_url=None",
        "--ServerApp.port_retries=0",
    ]
    log = (root / "lab.log").open("wb")
    server = subprocess.Popen(line, env=environment, cwd=root, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(WAIT * 5):
            with contextlib.suppress(URLError, OSError):
                urlopen(
                    Request(f"{address}/api/status", headers={"Authorization": f"token {token}"}), timeout=5
                ).close()
                break
            assert server.poll() is None, (root / "lab.log").read_text()
            time.sleep(0.2)
        yield f"{address}/?token={token}"
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # kernels that the server left behind
        server.wait(WAIT)
        log.close()


def chromium() -> str:
    """The browser of the system; a test without one fails."""
    found = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    assert found, "the browser tests need Chromium: apt-get install chromium, or name it in BROWSER_PATH"
    return found


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[BrowserContext]:
    """A fresh browser that can reach this machine only; `context.requests` is every address that it asked."""
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", "--disable-background-networking"]
        flags.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium(), args=flags, viewport={"width": 1440, "height": 1000}
        )
        context.set_default_timeout(60_000)
        try:
            yield context
        finally:
            context.close()


def write_notebook(path: Path, *cells: str) -> None:
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=kernel), path)


def open_notebook(page: Page, address: str, name: str) -> None:
    """Open a notebook by its address and wait for its kernel."""
    base, _, query = address.partition("/?")
    page.goto(f"{base}/lab/tree/{name}?{query}&reset")
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"
    )


def run_all(page: Page) -> None:
    """Run every cell; a cell that fails fails the test with its traceback."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(
        "() => { const k = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;"
        " const cells = window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.model);"
        " return cells.every(c => c.type !== 'code' || c.executionCount !== null) ||"
        " cells.some(c => (c.outputs?.toJSON() ?? []).some(o => o.output_type === 'error')); }"
    )
    outputs: list[Any] = page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap(c => c.model.outputs?.toJSON() ?? [])"
    )
    errors = ["\n".join(output["traceback"]) for output in outputs if output["output_type"] == "error"]
    assert not errors, re.sub(r"\x1b\[[0-9;]*m", "", errors[0])


def cell_count(page: Page) -> int:
    return int(page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length"))
