"""The job board in a real JupyterLab and a real browser."""

from __future__ import annotations

import datetime
import io
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from lab import Lab, cell_count, kernel_value, picture, saved_text, until, violations
from letters import NAMES, add_letter, new_store
from pdf_samples import A4, make_pdf, say
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, expect

from ocr_sprint.documents.synthetic import make_letter
from ocr_sprint.panels.screen import program
from ocr_sprint.review.queue import queue_state
from ocr_sprint.review.store import open_store

PANEL = ".ocr-sprint-jobs[data-painted]"
OPEN = """
from ocr_sprint.panels.jobs import job_board
panel = job_board("sqlite:///{name}.db"{more})
panel
"""


def open_board(lab: Lab, name: str, more: str = "", before: str = "") -> Locator:
    return lab.open(name, before + OPEN.format(name=name, more=more), panel=PANEL)


def letters(folder: Path, number: int) -> None:
    """Letters with text of their own, whose names are people's, and what is no letter."""
    folder.mkdir()
    for n in range(number):
        words = say() + say(f"Nomor : Sprin/{n}/I/2025", y=300)
        (folder / f"{NAMES[n % 5]} {n}.pdf").write_bytes(make_pdf((A4, words)))
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    (folder / "daftar.xlsx").write_bytes(b"PK\x03\x04")


def count(panel: Locator, state: str) -> Locator:
    return panel.locator(f'.counts [data-state="{state}"]')


def choose(panel: Locator, engine: str = "rapidocr") -> None:
    panel.get_by_label("Engine").select_option(engine)
    panel.get_by_role("button", name="Start").click()


def test_a_folder_is_looked_through_read_and_what_failed_is_said(lab: Lab, root: Path) -> None:
    letters(root / "masuk", 3)
    with new_store(root / "board.db") as store:
        panel = open_board(lab, "board")
        expect(panel.get_by_role("status")).to_contain_text("There are no letters yet")
        panel.get_by_label("Folder").fill("masuk")
        panel.get_by_label("Folder").press("Enter")
        expect(panel.locator(".contents")).to_have_text("4 PDF: 4 new.")
        expect(panel.locator("summary")).to_be_visible()
        choose(panel)
        expect(count(panel, "done")).to_have_text("done 3")
        expect(count(panel, "failed")).to_have_text("failed 1")
        expect(panel.get_by_role("status")).to_contain_text("Nothing waits")
        expect(panel.locator(".contents")).to_contain_text("3 in the store already")
        count(panel, "failed").click()
        row = panel.locator("tbody tr[data-state=failed]")
        expect(row).to_contain_text("torn.pdf: the PDF cannot be opened")
        expect(row).to_contain_text("fetch or scan the file again")
        expect(row.get_by_role("button")).to_have_count(0)
        expect(panel.get_by_role("button", name="Start")).to_be_enabled()
        assert queue_state(store)[:2] == (0, 0)
        assert sorted(job.status for job in store.jobs()) == ["done", "done", "done", "failed"]
        kept = saved_text(lab.page)
        assert [name for name in (*NAMES, "torn", "masuk") if name in kept.replace("no letter is torn", "")] == []


SLOW = """
import os, stat, tempfile
from pathlib import Path
programs = Path(tempfile.mkdtemp())
(programs / "tesseract").write_text('''#!/bin/sh
case "$1" in
--version) echo "tesseract 9.9.9" ;;
--list-langs) printf 'List of available languages (1):\\\\nind\\\\n' ;;
*) exec sleep 600 ;;
esac
''')
(programs / "tesseract").chmod(0o755)
os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
"""


def test_cancelled_after_a_reload_nothing_is_half_written(lab: Lab, root: Path) -> None:
    """A reader that would take ten minutes for each letter; the page is loaded again meanwhile."""
    folder = root / "scans"
    folder.mkdir()
    for number in range(3):
        (folder / f"scan-{number}.png").write_bytes(make_scan(number))
    with new_store(root / "cancel.db") as store:
        panel = open_board(lab, "cancel", ', folder="scans"', SLOW)
        expect(panel.locator(".contents")).to_have_text("3 PNG: 3 new.")
        choose(panel, "tesseract")
        expect(count(panel, "running")).to_have_text("running 1")
        count(panel, "running").click()
        expect(panel.locator("tbody tr[data-state=running]")).to_have_count(1)
        lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        worker = kernel_value(lab.page, "panel.intake.batch.reader._process.pid")
        lab.page.reload()
        panel = lab.page.locator(PANEL)
        expect(count(panel, "running")).to_have_text("running 1")
        panel.get_by_role("button", name="Cancel").click()
        expect(panel.get_by_role("status")).to_contain_text("3 letters in the queue, and nobody reads")
        until(lambda: not Path(f"/proc/{worker}").exists(), 20)
        assert queue_state(store)[:2] == (3, 0)
        assert {job.status for job in store.jobs()} == {"queued"}


def make_scan(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (900, 1200), 240 + number).save(file, "PNG")
    return file.getvalue()


COUNT = """
from ocr_sprint.panels.jobs import BoardAnswers
asked, answer = [], BoardAnswers.answer
BoardAnswers.answer = lambda self, kind, body: (asked.append(kind), answer(self, kind, body))[1]
"""


def watch_and_hide(lab: Lab, panel: Locator) -> None:
    """The board asks as long as it is in sight, and not otherwise."""

    def asked() -> int:
        return int(kernel_value(lab.page, "len(asked)"))

    before = asked()
    until(lambda: asked() > before)
    panel.evaluate("node => { node.style.display = 'none'; }")
    lab.page.wait_for_timeout(1500)  # a question may be on its way
    hidden = asked()
    lab.page.wait_for_timeout(2500)
    assert asked() == hidden
    panel.evaluate("node => { node.style.display = ''; }")
    until(lambda: asked() > hidden)


def test_no_violations_and_none_of_the_keys_leak(lab: Lab, root: Path) -> None:
    with new_store(root / "axe-jobs.db") as store:
        for number in range(30):
            add_letter(store, number, doubtful=("personel[0].nama",) if number % 3 else ())
        letters(root / "axe-folder", 2)
        panel = open_board(lab, "axe-jobs", ', folder="axe-folder"', COUNT)
        expect(panel.locator("tbody tr").first).to_be_visible()
        panel.locator("summary").click()
        panel.get_by_role("button", name="How to review").click()
        panel.evaluate("node => node.scrollIntoView({block: 'start'})")
        assert violations(lab.page, ".ocr-sprint-jobs") == []
        expect(panel.locator("code")).to_contain_text("review_panel(")
        panel.get_by_role("button", name="Further").click()
        expect(panel.locator(".where")).to_have_text("page 2")
        expect(panel.locator(".list tbody tr")).to_have_count(5)
        expect(panel.locator(".figure[data-drawn]")).to_be_visible()
        watch_and_hide(lab, panel)
        cells = cell_count(lab.page)
        for label in ("Folder", "Readers", "Engine"):
            panel.get_by_label(label, exact=True).focus()
            for key in ("d", "d", "a", "b", "x", "m", "y", "Shift+Enter", "Control+s"):
                lab.page.keyboard.press(key)
        assert cell_count(lab.page) == cells


def an_hour_ago() -> Callable[[], datetime.datetime]:
    """A clock that goes three minutes further each time it is looked at."""
    begin, looks = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=55), itertools.count()
    return lambda: begin + datetime.timedelta(minutes=3 * next(looks))


def test_two_letters_are_really_read_and_the_picture_is_taken(lab: Lab, root: Path) -> None:
    folder, names = root / "kiriman", [f"2025-{number}.pdf" for number in (46, 47)]
    number = 24 if os.environ.get("OCR_SPRINT_PICTURES") else 2
    letters(folder, number)
    (folder / "2025-45.pdf").write_bytes(b"%PDF-1.7 cut short")
    for seed, name in zip((46, 47), names, strict=True):
        (folder / name).write_bytes(make_letter(seed, layout="ruled", level="clean").data)
    with open_store(f"sqlite:///{root}/picture-jobs.db", clock=an_hour_ago()) as store:
        for n in range(12):
            job_id = add_letter(store, n, doubtful=("personel[0].nama",) if n % 3 else ())
            if n < 4:
                store.approve(job_id, by="reviewer-a")
        panel = open_board(lab, "picture-jobs", ', folder="kiriman"')
        expect(panel.locator(".contents")).to_contain_text(f"{number + 4} new")
        panel.get_by_label("Readers").fill("2")
        choose(panel)
        expect(count(panel, "failed")).to_have_text("failed 1")
        expect(panel.locator("tr.short").first).to_be_visible()
        expect(panel.locator(".figure[data-drawn]")).to_be_visible()
        if os.environ.get("OCR_SPRINT_PICTURES"):
            until(lambda: sum(job.status != "queued" for job in store.jobs()) >= 20)
            expect(panel.get_by_role("status")).to_contain_text("a minute")
            picture(lab.page, ".ocr-sprint-jobs", "jobs_panel")
        expect(count(panel, "done")).to_have_text(f"done {number + 14}")
        read = {job.filename: job for job in store.jobs()}
        assert [name for name in names if not read[name].engine.startswith("rapidocr")] == []
        assert [name for name in names if read[name].result["header"]["jenis"] is None] == []


STATE = {"phase": "idle", "folder": None, "problems": [], "reads": True, "retrying": False, "engines": [], "cores": 1}
SILENT = "The service has not answered for 20 seconds. Nothing is known yet."
TOLD = """async ([program, state, row]) => {
  const module = await import(URL.createObjectURL(new Blob([program], { type: "text/javascript" })));
  const late = { busy: true, problem: null, note: state.note, rows: null, after: null, figure: null, caption: null };
  const kept = { ...late, busy: false, note: "", rows: [row] };
  window.asked = [];
  window.told = { state, rows: late, throughput: { ...late, busy: false }, readiness: { ...late, busy: false } };
  const fresh = { ...state, note: "", headline: "Nothing waits." };
  window.known = () => Object.assign(window.told, { rows: kept, state: fresh });
  let hear = null;
  const send = ({ id, kind, body }) => {
    window.asked.push([kind, body.renew]);
    queueMicrotask(() => hear({ id, body: window.told[kind] }, []));
  };
  module.default.render({ model: { on: (_, heard) => { hear = heard; }, off: () => {}, send }, el: document.body });
}"""


def test_what_a_silent_service_is_asked_comes_into_sight_once_it_answers(context: BrowserContext) -> None:
    page = context.new_page()
    counts = {name: int(name == "all") for name in ("all", "queued", "running", "done", "failed", "needs review")}
    state = STATE | {"opening": "", "headline": SILENT, "note": SILENT, "counts": counts, "newest": "1"}
    row = {"job_id": "1", "filename": "letter.pdf", "state": "queued", "pages": 1, "confidence": None, "flags": []}
    row |= {"error": None, "advice": None, "retry": False, "seconds": None, "flag_line": ""}
    page.evaluate(TOLD, [program("jobs"), state | {"done": 0, "total": 1, "approved": 0}, row])
    expect(page.get_by_role("status")).to_have_text(SILENT)
    expect(page.locator(".list .empty")).to_have_text(SILENT)
    page.wait_for_function("() => window.asked.some(([kind, renew]) => kind === 'rows' && renew === false)")
    asked_anew = "window.asked.filter(([kind, renew]) => kind === 'readiness' && renew).length"
    assert page.evaluate(asked_anew) == 0
    page.evaluate("() => void window.known()")
    expect(page.locator(".list tbody tr")).to_have_count(1)
    expect(page.locator(".list .empty")).to_be_hidden()
    page.wait_for_function(f"() => {asked_anew} === 1")
    page.close()


BARE = """async ([program, state]) => {
  Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true });
  const module = await import(URL.createObjectURL(new Blob([program], { type: "text/javascript" })));
  let hear = null;
  const send = ({ id, kind }) => kind === "state" && queueMicrotask(() => hear({ id, body: state }, []));
  module.default.render({ model: { on: (_, heard) => { hear = heard; }, off: () => {}, send }, el: document.body });
}"""


def test_where_a_page_may_not_copy_the_text_is_marked(context: BrowserContext) -> None:
    """As on a page without TLS."""
    page = context.new_page()
    call = "review_panel('sqlite:///letters.db')"
    page.evaluate(BARE, [program("jobs"), STATE | {"opening": call, "headline": "", "counts": None}])
    page.get_by_role("button", name="How to review these letters").click()
    expect(page.locator("code")).to_have_text(call)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="press Ctrl+C")).to_be_visible()
    assert page.evaluate("String(getSelection())") == call
    page.close()
