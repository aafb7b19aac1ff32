"""A real JupyterLab and a real browser, both on this machine only, and what every panel's test does with them.

A test takes the fixture `lab`, opens a notebook of its cells, and works on `lab.page`, a Playwright page:

    panel = lab.open("coverage", CELL, panel=".ocr-sprint-coverage[data-painted]")
    assert violations(lab.page, ".ocr-sprint-coverage") == []
    assert [name for name in NAMES if name in saved_text(lab.page)] == []
    picture(lab.page, ".ocr-sprint-coverage", "coverage_panel")

Wait for what is meant to come about, with Playwright's `expect` or with `until`; never sleep.
"""

from __future__ import annotations

import ast
import contextlib
import io
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from npm_package import install
from PIL import Image
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Playwright, expect

WAIT = 120  # seconds, for machines that are busy with other things
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
}
AXE = Path(__file__).resolve().parent / "axe"
expect.set_options(timeout=WAIT * 1000)
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
IMAGES = Path(__file__).resolve().parents[2] / "nbs" / "images"
NOTEBOOK = "window.jupyterapp?.shell.currentWidget"
KERNEL = f"{NOTEBOOK}?.context?.sessionContext?.session?.kernel"


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
        "--KernelManager.shutdown_wait_time=0.2",  # nothing that a kernel would still do is wanted
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
    """The browser of the system; without one the tests fail."""
    found = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise pytest.UsageError("the browser tests need Chromium: apt-get install chromium, or name it in BROWSER_PATH")
    return found


@contextlib.contextmanager
def browser(playwright: Playwright, profile: Path) -> Iterator[BrowserContext]:
    """A browser with a profile of its own, which can reach this machine only."""
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", "--disable-background-networking"]
    flags.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    context = playwright.chromium.launch_persistent_context(
        profile, executable_path=chromium(), args=flags, viewport={"width": 1440, "height": 1000}
    )
    context.set_default_timeout(WAIT * 1000)
    try:
        yield context
    finally:
        context.close()


@contextlib.contextmanager
def watched(context: BrowserContext) -> Iterator[Page]:
    """A page whose errors fail its test, and that must not ask another host for anything."""
    page = context.new_page()
    errors: list[str] = []
    addresses: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", heard)
    page.on("request", lambda request: addresses.append(request.url))
    page.on("websocket", lambda socket: addresses.append(socket.url))
    try:
        yield page
    finally:
        page.close(run_before_unload=False)
    assert not errors, "the page reported: " + "\n".join(errors)
    assert [each for each in addresses if urlsplit(each).hostname not in (None, "", "127.0.0.1")] == []


def until(holds: Callable[[], bool], seconds: float = WAIT) -> None:
    """Wait for what no page shows, such as a store or a file; fail when it does not come about."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds} s"
        time.sleep(0.05)


def write_notebook(path: Path, *cells: str) -> None:
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=kernel), path)


def open_notebook(page: Page, address: str, name: str) -> None:
    """Open a notebook by its address and wait for its kernel."""
    base, _, query = address.partition("/?")
    page.goto(f"{base}/lab/tree/{name}?{query}&reset")
    page.wait_for_function(f"() => {KERNEL}?.status === 'idle'")
    # What goes wrong in the kernel outside of a cell, as a page error.
    page.evaluate(
        f"() => {{ {KERNEL}.iopubMessage.connect((_, message) => {{ if (message.header.msg_type === 'error'"
        " && message.parent_header.msg_type !== 'execute_request')"
        " console.error(message.content.traceback.join('\\n')); }); }"
    )


def run_all(page: Page) -> None:
    """Run every cell; a cell that fails fails the test with its traceback."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(
        f"() => {{ const cells = {NOTEBOOK}.content.widgets.map(c => c.model);"
        " return cells.every(c => c.type !== 'code' || c.executionCount !== null) ||"
        " cells.some(c => (c.outputs?.toJSON() ?? []).some(o => o.output_type === 'error')); }"
    )
    outputs: list[Any] = page.evaluate(
        f"() => {NOTEBOOK}.content.widgets.flatMap(c => c.model.outputs?.toJSON() ?? [])"
    )
    errors = ["\n".join(output["traceback"]) for output in outputs if output["output_type"] == "error"]
    assert not errors, re.sub(r"\x1b\[[0-9;]*m", "", errors[0])


class Lab:
    """A page of JupyterLab, and the folder in which its notebooks stand, where its kernels work."""

    def __init__(self, page: Page, root: Path, address: str) -> None:
        self.page, self.root, self.address = page, root, address

    def open(self, name: str, *cells: str, panel: str) -> Locator:
        """Write the notebook NAME.ipynb, run all of it, and give what the CSS selector finds once it is there."""
        write_notebook(self.root / f"{name}.ipynb", *cells)
        open_notebook(self.page, self.address, f"{name}.ipynb")
        run_all(self.page)
        self.page.wait_for_selector(panel)
        return self.page.locator(panel)


def kernel_value(page: Page, expression: str) -> Any:
    """What an expression of JSON values is in the notebook's kernel, without a cell of its own."""
    code = f"__import__('json').dumps({expression})"
    answer = page.evaluate(
        f"async (code) => {{ const asked = {{code: '', store_history: false, user_expressions: {{value: code}}}};"
        f" return (await {KERNEL}.requestExecute(asked).done).content.user_expressions.value; }}",
        code,
    )
    assert answer["status"] == "ok", answer
    return json.loads(ast.literal_eval(answer["data"]["text/plain"]))


def cell_count(page: Page) -> int:
    return int(page.evaluate(f"() => {NOTEBOOK}.content.widgets.length"))


def saved_text(page: Page) -> str:
    """Save the notebook with the state of its widgets, and give all of the file, to look for names and NRPs."""
    text: str = page.evaluate(
        "async () => { const app = window.jupyterapp; await app.commands.execute('docmanager:save');"
        f" const options = {{content: true, format: 'text', type: 'file'}}, path = {NOTEBOOK}.context.path;"
        " return (await app.serviceManager.contents.get(path, options)).content; }"
    )
    assert "application/vnd.jupyter.widget-state+json" in text, "the state of the widgets was not saved"
    return text


def use_theme(page: Page, theme: str) -> None:
    """Switch JupyterLab to Light or Dark, and wait until everything has its colours."""
    change = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
    page.evaluate(change, f"JupyterLab {theme}")
    page.wait_for_selector(f'body[data-jp-theme-name="JupyterLab {theme}"]', state="attached")
    page.wait_for_function("() => document.getAnimations().every(each => each.playState !== 'running')")


JUDGE = """([selector, tags]) => axe.run(selector, {runOnly: tags}).then((result) => {
  const contrast = result.passes.concat(result.violations).filter((rule) => rule.id === 'color-contrast');
  const ratios = contrast.flatMap((rule) => rule.nodes.map((node) => node.any[0]?.data?.contrastRatio));
  const why = (node) => `${node.html.slice(0, 200)} ${node.failureSummary}`;
  return [ratios.filter(Boolean).length, result.violations.map((rule) => [rule.id, ...rule.nodes.map(why)])];
})"""


def violations(page: Page, selector: str) -> list[list[str]]:
    """What axe-core finds against WCAG A and AA in light and in dark: theme, rule, and the elements with the reason."""
    found: list[list[str]] = []
    page.evaluate((install(AXE, "axe-core") / "axe.min.js").read_text())
    # JupyterLab's body is 0 pixels high and hides what overflows, so axe-core takes everything in it for invisible.
    page.evaluate("() => { document.body.style.minHeight = '100vh'; }")
    try:
        for theme in ("Light", "Dark"):
            use_theme(page, theme)
            measured, judged = page.evaluate(JUDGE, [selector, list(TAGS)])
            assert measured > 0, f"axe-core saw no text in {selector}"
            found += [[theme, *each] for each in judged]
    finally:
        page.evaluate("() => { document.body.style.minHeight = ''; }")
        use_theme(page, "Light")  # the server keeps the theme for whoever comes next
    return found


def picture(page: Page, selector: str, name: str) -> bytes:
    """Photograph a panel as it stands, under 250 kB; OCR_SPRINT_PICTURES=1 puts it into nbs/images/NAME.png."""
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    panel = page.locator(selector)
    size, box = page.viewport_size, panel.bounding_box()
    assert size is not None and box is not None
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(box["height"]) + 200)})
    panel.scroll_into_view_if_needed()
    taken = Image.open(io.BytesIO(panel.screenshot(scale="css", animations="disabled")))
    page.set_viewport_size(size)
    file = io.BytesIO()
    taken.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(file, "PNG", optimize=True)
    assert file.tell() < 250_000, f"{name}.png has {file.tell()} bytes"
    if os.environ.get("OCR_SPRINT_PICTURES"):
        (IMAGES / f"{name}.png").write_bytes(file.getvalue())
    return file.getvalue()
