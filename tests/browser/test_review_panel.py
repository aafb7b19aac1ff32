"""The review panel in a real JupyterLab and a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import WAIT, Lab, cell_count, kernel_value, picture, saved_text, until, violations
from letters import NAMES, add_letter, new_store
from playwright.sync_api import Locator, expect
from reviewing import SERVED, SLOW, Bench, served

from ocr_sprint.documents.pipeline import ingest
from ocr_sprint.documents.synthetic import Level, make_letter
from ocr_sprint.review.tokens import create_token

# What JupyterLab would do something with.
SHORTCUTS = ("d", "d", "a", "b", "x", "m", "y", "0", "0", "Shift+Enter", "Alt+Enter", "Shift+M", "Control+s")
DOUBTFUL = ("personel[0].nama", "personel[1].nrp", "personel[2].nama")


WAITED = """() => {
  const title = document.querySelector('.ocr-sprint-review .name');
  window.waited = [];
  const note = (node) => {
    if (node.className === 'message') window.waited.push(`${title.textContent}: ${node.textContent}`);
  };
  new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(note)))
    .observe(document.querySelector('.ocr-sprint-review'), {childList: true, subtree: true});
}"""


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
        expect(panel.locator(".status")).to_contain_text("Saved: sprint-001.png, approved")
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
            for key in SHORTCUTS:
                bench.page.keyboard.press(key)
        assert kernel_value(bench.page, "1") == 1  # whatever cell a key had run would have come before
        expect(approve).to_be_enabled()
        approve.focus()
        bench.page.keyboard.press("Control+Enter")
        expect(panel.locator(".status")).to_contain_text("approved")
        assert kernel_value(bench.page, "1") == 1
        assert cell_count(bench.page) == cells
        assert bench.page.evaluate(executed) == before
        assert bench.page.locator(".jp-Dialog").count() == 0


def test_a_saved_notebook_holds_no_personal_data_and_unsaved_work_survives_a_reload(bench: Bench, root: Path) -> None:
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
        expect(bench.field(DOUBTFUL[0])).to_have_value("ACHMAD SUBAGYA")


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
        assert waited >= 2900, "what is merely slow is not called lost"
        panel.get_by_role("button", name="Send again").click()
        expect(panel.locator(".status")).to_contain_text("Saved: sprint-001.png", timeout=60_000)
        expect(panel.get_by_role("alert")).to_be_empty()
        until(lambda: len(store.trail(job_id)) == 3)
        assert [event.new_value for event in store.events(job_id)] == ["ACHMAD SUBAGYA"]


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
        expect(panel.locator(".status")).to_contain_text("Saved: sprint-001.png")
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
        with served(store, tmp_path / "s") as service:

            def sit(name: str) -> Locator:
                (root / f"{name}.token").write_text(tokens[name])
                return bench.open("served", SERVED, by=name, service=service)

            panel = sit("reviewer-a")
            expect(panel.locator(".paper img")).to_be_visible()
            bench.field("header.perihal").fill("patroli malam")
            bench.page.keyboard.press("Control+Enter")
            expect(panel.locator(".status")).to_contain_text("approved")

            panel = sit_second(sit, "reviewer-b", "second")
            expect(bench.field("header.perihal")).to_have_value("patroli")
            expect(panel.locator(".trail")).not_to_contain_text("reviewer-a")
            bench.field("header.perihal").fill("penjagaan")
            bench.page.keyboard.press("Control+Enter")
            expect(panel.locator(".status")).to_contain_text("differs from the first review in 1")

            panel = sit_second(sit, "reviewer-c", "conflict")
            table = panel.get_by_role("region", name="Where two people differ")
            expect(table.get_by_role("row").nth(1)).to_contain_text("patrolipatroli malampenjagaan")
            assert violations(bench.page, ".ocr-sprint-review") == []
            table.get_by_role("button", name="Second: header.perihal").click()
            expect(bench.field("header.perihal")).to_have_value("penjagaan")
            bench.page.keyboard.press("Control+Enter")
            expect(panel.locator(".status")).to_contain_text("Saved")
            job = store.job(job_id)
            assert (job.result["header"]["perihal"], job.reviewed_by) == ("penjagaan", "reviewer-c")


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
    """A letter that was really read: a bad scan for the documentation, and otherwise one that takes no OCR."""
    level: Level = "hard" if os.environ.get("OCR_SPRINT_PICTURES") else "digital"
    scan = make_letter(46, layout="ruled", level=level, pen=level != "digital")
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


def test_next_shows_what_was_fetched_ahead(bench: Bench, root: Path) -> None:
    """Two hundred letters, and never a sign that one is waited for; bench/panels.py says how fast that is."""
    with new_store(root / "queue.db") as store:
        for number in range(200):
            add_letter(store, number, people=8)
        panel = bench.open("queue")
        expect(panel).to_have_attribute("data-ahead", "2")
        bench.page.evaluate(WAITED)
        for _ in range(20):
            expect(panel).to_have_attribute("data-ahead", "2")
            before = panel.get_attribute("data-painted") or ""
            bench.page.keyboard.press("Control+Enter")
            expect(panel).not_to_have_attribute("data-painted", before)
        expect(panel.locator(".where")).to_contain_text("21 of 200 · 20 done")
        assert bench.page.evaluate("() => window.waited") == []
        until(lambda: sum(job.approved for job in store.jobs()) == 20)
