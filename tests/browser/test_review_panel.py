"""The review panel in a real JupyterLab and a real browser."""

from __future__ import annotations

import os
import re
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn
from lab import WAIT, Lab, cell_count, picture, saved_text, until, violations
from letters import NAMES, add_letter, new_store
from playwright.sync_api import Locator, expect

from ocr_sprint.api.app import create_app
from ocr_sprint.api.service import Settings
from ocr_sprint.documents.pipeline import ingest
from ocr_sprint.documents.synthetic import make_letter
from ocr_sprint.review.tokens import create_token

DOUBTFUL = ("personel[0].nama", "personel[1].nrp", "personel[2].nama")
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


READY = ".ocr-sprint-review:is([data-painted], :has(.message))"


class Bench:
    """A review panel in a notebook, over a store that the test sees too."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.page = lab, lab.page

    def open(self, name: str, cell: str = OPEN, by: str = "reviewer-a") -> Locator:
        self.lab.open(f"{name}-{by}", cell.format(name=name, by=by), panel=READY)
        return self.panel()

    def panel(self) -> Locator:
        self.page.wait_for_selector(READY)
        return self.page.locator(".ocr-sprint-review")

    def field(self, path: str) -> Locator:
        return self.page.locator(f'.ocr-sprint-review [data-path="{path}"]')


@pytest.fixture
def bench(lab: Lab) -> Bench:
    return Bench(lab)


def test_a_letter_with_three_doubtful_fields_takes_four_keys(bench: Bench, root: Path) -> None:
    with new_store(root / "keys.db") as store:
        job_id = add_letter(store, 1, doubtful=DOUBTFUL)
        panel = bench.open("keys")
        expect(bench.field(DOUBTFUL[0])).to_be_focused()
        expect(panel.locator(".detail")).to_contain_text("the name contains a digit")
        expect(panel.locator(".paper img")).to_be_visible()
        for _ in DOUBTFUL:
            bench.page.keyboard.press("Enter")
        expect(panel.get_by_role("button", name="Approve")).to_be_focused()
        bench.page.keyboard.press("Enter")
        expect(panel.get_by_role("status")).to_contain_text("Saved: sprint-001.png, approved")
        assert store.job(job_id).reviewed_by == "reviewer-a"


def test_typed_then_approved_at_once_is_what_is_stored(bench: Bench, root: Path) -> None:
    """A hundred fields, no pause between typing and approving, and a kernel that takes 0.3 s for each message."""
    with new_store(root / "race.db") as store:
        job_ids = [add_letter(store, number, people=10) for number in range(1, 6)]
        panel = bench.open("race", SLOW)
        columns = ("nama", "nrp")
        for number in range(1, 6):
            expect(panel.locator(".name")).to_have_text(f"sprint-{6 - number:03}.png")
            expect(bench.field("personel[9].nrp")).to_be_visible()
            for row in range(10):
                for column in columns:
                    bench.field(f"personel[{row}].{column}").focus()
                    bench.page.keyboard.press("Control+a")
                    bench.page.keyboard.insert_text(f"{column} {number} {row}")
            bench.page.keyboard.press("Control+Enter")
        until(lambda: all(store.job(job_id).approved for job_id in job_ids), 4 * WAIT)
        wrong = 0
        for job_id in job_ids:
            people = store.job(job_id).result["personel"]
            number = people[0]["nama"].split()[1]
            wrong += sum(people[row][column] != f"{column} {number} {row}" for row in range(10) for column in columns)
        assert wrong == 0


def test_the_notebook_gets_none_of_the_keys(bench: Bench, root: Path) -> None:
    with new_store(root / "leak.db") as store:
        add_letter(store, 1, doubtful=DOUBTFUL)
        panel = bench.open("leak")
        cells = cell_count(bench.page)
        executed = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.model.executionCount)"
        before = bench.page.evaluate(executed)
        approve = panel.get_by_role("button", name="Approve", exact=True)
        for target in (panel.locator(".viewer"), bench.field(DOUBTFUL[0]), panel.get_by_role("button", name="Keys")):
            target.focus()
            for key in (
                "d",
                "d",
                "a",
                "b",
                "x",
                "m",
                "y",
                "0",
                "0",
                "Shift+Enter",
                "Alt+Enter",
                "Shift+M",
                "Control+s",
            ):
                bench.page.keyboard.press(key)
        time.sleep(1)
        approve.focus()
        bench.page.keyboard.press("Control+Enter")
        time.sleep(1)
        assert cell_count(bench.page) == cells
        assert bench.page.evaluate(executed) == before
        assert bench.page.locator(".jp-Dialog").count() == 0


def test_a_saved_notebook_holds_no_personal_data_and_the_panel_survives_a_reload(bench: Bench, root: Path) -> None:
    with new_store(root / "saved.db") as store:
        add_letter(store, 1, doubtful=DOUBTFUL)
        panel = bench.open("saved")
        expect(panel.locator(".paper img")).to_be_visible()
        bench.field(DOUBTFUL[0]).fill("ACHMAD SUBAGYA")
        bench.page.keyboard.press("Tab")
        saved = saved_text(bench.page)
        assert "ocr-sprint-review" in saved, "the panel's own program is there"
        assert [word for word in (*NAMES, "SUBAGYA", "7706000", "sprint-001", "sprint-001.png") if word in saved] == []
        bench.page.on("dialog", lambda dialog: dialog.accept())
        bench.page.reload()
        expect(bench.panel().locator(".name")).to_have_text("sprint-001.png")
        expect(bench.field(DOUBTFUL[0])).to_have_value(NAMES[0])


def test_silence_is_said_and_the_work_arrives_once(bench: Bench, root: Path) -> None:
    """A kernel that takes fifteen seconds over the first thing that is handed in."""
    with new_store(root / "silent.db") as store:
        job_id = add_letter(store, 1, doubtful=DOUBTFUL)
        late = SLOW.replace("time.sleep(0.3)", 'time.sleep(15 * (message["kind"] == "save"))')
        panel = bench.open("silent", late)
        bench.page.evaluate(
            "() => { const root = document.querySelector('.ocr-sprint-review'), alert = root.querySelector('.alert');"
            " root.addEventListener('keydown', () => { window.asked = performance.now(); }, true);"
            " new MutationObserver(() => { if (alert.textContent) window.told ??= performance.now(); })"
            ".observe(alert, {childList: true}); }"
        )
        bench.field(DOUBTFUL[0]).fill("ACHMAD SUBAGYA")
        bench.page.keyboard.press("Control+Enter")
        expect(panel.get_by_role("alert")).to_contain_text("Not saved: sprint-001.png", timeout=14_000)
        waited = bench.page.evaluate("() => window.told - window.asked")
        print(f"\nsilence was said after {waited:.0f} ms, load {os.getloadavg()[0]:.1f}")
        assert waited >= 2900
        panel.get_by_role("button", name="Send again").click()
        expect(panel.get_by_role("status")).to_contain_text("Saved: sprint-001.png", timeout=60_000)
        expect(panel.get_by_role("alert")).to_be_empty()
        until(lambda: len(store.trail(job_id)) == 3)
        assert [event.new_value for event in store.events(job_id)] == ["ACHMAD SUBAGYA"]


def test_two_people_on_one_letter_lose_nothing(bench: Bench, root: Path, another: Callable[[], Lab]) -> None:
    with new_store(root / "two.db") as store:
        job_id = add_letter(store, 1)
        first = bench.open("two")
        other = Bench(another())
        second = other.open("two", by="reviewer-b")
        bench.field("header.perihal").fill("patroli malam")
        bench.field("personel[0].nama").fill("ACHMAD SUBAGYA")
        bench.page.keyboard.press("Control+Enter")
        expect(first.get_by_role("status")).to_contain_text("Saved")
        other.field("header.perihal").fill("patroli pagi")
        other.field("header.tempat").fill("Bogor")
        other.page.keyboard.press("Control+Enter")
        expect(second.get_by_role("alert")).to_contain_text("Not saved")
        expect(second.locator(".clash")).to_contain_text("you: patroli pagi; now: patroli malam")
        expect(other.field("personel[0].nama")).to_have_value("ACHMAD SUBAGYA")
        expect(other.field("header.tempat")).to_have_value("Bogor")
        expect(second.locator(".trail")).to_contain_text("reviewer-a: approved")
        other.page.keyboard.press("Control+Enter")
        expect(second.get_by_role("status")).to_contain_text("Saved")
        header = store.job(job_id).result["header"]
        assert (header["perihal"], header["tempat"], store.job(job_id).approved) == ("patroli malam", "Bogor", True)


def test_rows_are_added_moved_deleted_and_undone(bench: Bench, root: Path) -> None:
    with new_store(root / "rows.db") as store:
        job_id = add_letter(store, 1, doubtful=DOUBTFUL)
        panel = bench.open("rows")
        bench.field("personel[0].nama").focus()
        bench.page.keyboard.press("Alt+n")
        expect(bench.field("personel[1].nama")).to_be_focused()
        bench.page.keyboard.insert_text("GITA PERMATA")
        bench.page.keyboard.press("Tab")
        bench.page.keyboard.press("Alt+ArrowUp")
        expect(bench.field("personel[0].nama")).to_have_value("GITA PERMATA")
        bench.field("personel[3].nama").focus()
        bench.page.keyboard.press("Alt+Backspace")
        bench.page.keyboard.press("Alt+Backspace")
        expect(bench.field("personel[2].nama")).to_have_count(0)
        bench.page.keyboard.press("Escape")
        bench.page.keyboard.press("u")
        expect(bench.field("personel[2].nama")).to_have_value(NAMES[1])
        bench.field("header.perihal").fill("patroli malam")
        bench.page.keyboard.press("Alt+6")
        expect(panel.locator(".trail")).to_contain_text("(decided by the reviewer) not saved")
        bench.page.keyboard.press("Control+s")
        expect(panel.get_by_role("status")).to_contain_text("Saved: sprint-001.png")
        expect(panel.locator(".trail")).not_to_contain_text("not saved")
        job = store.job(job_id)
        assert [person["nama"] for person in job.result["personel"]] == ["GITA PERMATA", NAMES[0], NAMES[1]]
        assert not job.approved
        reasons = [event.reason for event in store.events(job_id)]
        assert reasons[-1] == "decided by the reviewer"
        expect(panel.locator('[data-path="personel[1].nama"].doubtful')).to_have_count(1)
        panel.get_by_role("button", name="Take back the last saved corrections").click()
        expect(bench.field("personel[0].nama")).to_have_value(NAMES[0])
        assert store.job(job_id).result["header"]["perihal"] == "patroli"


def test_a_blind_second_review_and_a_decision_over_the_service(bench: Bench, root: Path, tmp_path: Path) -> None:
    """The same panel, over HTTP with tokens, for three people."""
    with new_store(tmp_path / "served.db") as store:
        job_id = add_letter(store, 1)
        tokens = {name: create_token(store, name, "reviewer") for name in ("reviewer-a", "reviewer-b", "reviewer-c")}
        server = uvicorn.Server(uvicorn.Config(create_app(store, Settings(tmp_path / "s")), port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            until(lambda: server.started)
            service = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

            def sit(name: str) -> Locator:
                (root / f"{name}.token").write_text(tokens[name])
                cell = "from pathlib import Path\nfrom ocr_sprint.panels.review import review_panel\n"
                cell += f"review_panel({service!r}, token=Path({name + '.token'!r}).read_text())"
                return bench.open("served", cell, by=name)

            panel = sit("reviewer-a")
            expect(panel.locator(".paper img")).to_be_visible()
            bench.field("header.perihal").fill("patroli malam")
            bench.page.keyboard.press("Control+Enter")
            expect(panel.get_by_role("status")).to_contain_text("approved")

            panel = sit_second(sit, "reviewer-b", "second")
            expect(bench.field("header.perihal")).to_have_value("patroli")
            expect(panel.locator(".trail")).not_to_contain_text("reviewer-a")
            bench.field("header.perihal").fill("penjagaan")
            bench.page.keyboard.press("Control+Enter")
            expect(panel.get_by_role("status")).to_contain_text("differs from the first review in 1")

            panel = sit_second(sit, "reviewer-c", "conflict")
            table = panel.get_by_role("region", name="Where two people differ")
            expect(table.get_by_role("row").nth(1)).to_contain_text("patrolipatroli malampenjagaan")
            table.get_by_role("button", name="Second: header.perihal").click()
            expect(bench.field("header.perihal")).to_have_value("penjagaan")
            bench.page.keyboard.press("Control+Enter")
            expect(panel.get_by_role("status")).to_contain_text("Saved")
            job = store.job(job_id)
            assert (job.result["header"]["perihal"], job.reviewed_by) == ("penjagaan", "reviewer-c")
        finally:
            server.should_exit = True
            thread.join()


def sit_second(sit: Callable[[str], Locator], name: str, mode: str) -> Locator:
    """Sit down at a panel that has nothing for a first review, and choose another kind of review."""
    panel = sit(name)
    panel.get_by_label("Kind of review").select_option(mode)
    expect(panel.locator(".name")).to_have_text("sprint-001.png")
    return panel


def test_no_accessibility_violations_in_light_and_in_dark(bench: Bench, root: Path) -> None:
    with new_store(root / "axe.db") as store:
        add_letter(store, 1, doubtful=DOUBTFUL)
        panel = bench.open("axe")
        bench.field("personel[1].nrp").fill("7706")
        bench.page.keyboard.press("Tab")
        expect(bench.field("personel[1].nrp")).to_have_class(re.compile(r"\bodd\b"))
        panel.get_by_role("button", name="Keys").click()
        assert violations(bench.page, ".ocr-sprint-review") == []


def test_the_picture_of_the_documentation(bench: Bench, root: Path, tmp_path: Path) -> None:
    """A scan that was really read; OCR_SPRINT_PICTURES=1 puts the picture into the documentation."""
    scan = make_letter(46, layout="ruled", level="hard", pen=True)
    (tmp_path / f"sprint-046{scan.suffix}").write_bytes(scan.data)
    with new_store(root / "picture.db") as store:
        list(ingest([tmp_path], store, progress=False))
        add_letter(store, 1)
        panel = bench.open("picture")
        expect(panel.locator(".name")).to_have_text(f"sprint-046{scan.suffix}")
        expect(panel.locator(".paper img")).to_be_visible()
        bench.field("personel[1].nama").focus()
        bench.page.keyboard.press("Tab")
        picture(bench.page, ".ocr-sprint-review", "review_panel")


def test_next_is_painted_from_what_was_fetched_ahead(bench: Bench, root: Path) -> None:
    """Two hundred letters; the figures are printed, and are held to their budget where the machine is free for it."""
    with new_store(root / "queue.db") as store:
        for number in range(200):
            add_letter(store, number, people=8)
        panel = bench.open("queue")
        times = []
        for _ in range(20):
            expect(panel).to_have_attribute("data-ahead", "2")
            before = panel.get_attribute("data-painted")
            bench.page.keyboard.press("Control+Enter")
            expect(panel).not_to_have_attribute("data-painted", before)
            times.append(int(panel.get_attribute("data-ms")))
        print(
            f"\nnext to painted over {len(times)} letters of 200: median {statistics.median(times)} ms, "
            f"greatest {max(times)} ms, load {os.getloadavg()[0]:.1f}"
        )
        until(lambda: sum(job.approved for job in store.jobs()) == 20)
        if os.environ.get("OCR_SPRINT_BUDGETS"):
            assert statistics.median(times) <= 100
            assert max(times) <= 250
