"""The calibration panel in a real JupyterLab: scores by key, what may be seen when, figures, and the file of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calibration_samples import DIMENSIONS, FILTER, PLACES, calibrated, truth
from lab import Lab, cell_count, picture, saved_text, until, violations
from playwright.sync_api import Locator, expect

from ocr_sprint.ground_truth.filters import load_filter
from ocr_sprint.ground_truth.ratings import read_people

PANEL = ".ocr-sprint-calibration"
SCORES = (6, 7, 10, 3, 0, 1, 0, 2)
CONFIG = load_filter(FILTER).config


@pytest.fixture(scope="module", autouse=True)
def report(root: Path) -> Path:
    """One calibration for all tests; each scores under a name of its own."""
    return calibrated(root / "calibration")


def cell(name: str) -> str:
    line = "from ocr_sprint.panels.calibration import calibration_panel\n"
    return line + f'calibration_panel("calibration/reports/gazette.md", name={name!r})'


def opened(lab: Lab, name: str) -> Locator:
    return lab.open(f"calibration-{name}", cell(name), panel=f"{PANEL}[data-painted]")


def field(panel: Locator, name: str) -> Locator:
    return panel.locator("tbody").get_by_label(name.replace("_", " "), exact=False)


def press_scores(lab: Lab, scores: tuple[int, ...] = SCORES) -> None:
    """All dimensions and the kind of text, without a pause, as soon as the text is in view."""
    expect(lab.page.locator(f"{PANEL} tbody input").first).to_be_focused()
    for score in scores:
        lab.page.keyboard.press("t" if score == 10 else str(score))
    lab.page.keyboard.type("comm")


def people(report: Path, name: str) -> Path:
    return report.with_suffix("") / "people" / f"{name}.jsonl"


def test_scored_by_key_and_the_others_come_into_view_afterwards(lab: Lab, report: Path) -> None:
    panel = opened(lab, "analyst-a")
    expect(field(panel, "agency")).to_be_focused()
    expect(panel.locator(".where")).to_have_text("text 1 of 24 · 0 scored by analyst-a")
    expect(panel.locator(".reasons")).to_be_empty()
    first = panel.get_attribute("data-text")
    lab.page.keyboard.press("Enter")
    expect(panel.get_by_role("status")).to_contain_text("Not scored yet: agency")
    press_scores(lab)
    expect(panel.locator(".reasons dt")).to_have_text(["flash", "pro", "haiku", "baseline"])
    expect(panel.locator(".evidence").first).to_be_visible()
    lab.page.keyboard.press("Enter")
    expect(panel).not_to_have_attribute("data-text", str(first))
    expect(field(panel, "agency")).to_be_focused()
    expect(panel.locator(".reasons")).to_be_empty()
    until(people(report, "analyst-a").exists)
    found = read_people(people(report, "analyst-a"), CONFIG)
    assert found[str(first)].scores == dict(zip(DIMENSIONS, SCORES, strict=True))
    assert found[str(first)].content_type == "community_building"
    label = json.loads(people(report, "analyst-a").read_text())["uplifting_analysis"]
    assert label["provenance"]["models_seen"] is False
    saved_text(lab.page)
    lab.page.on("dialog", lambda dialog: dialog.accept())
    lab.page.reload()
    expect(panel.locator(".where")).to_have_text("text 2 of 24 · 1 scored by analyst-a")


def test_ten_texts_later_the_figures_hold_the_models_against_the_person(lab: Lab) -> None:
    panel = opened(lab, "analyst-b")
    panel.get_by_role("button", name="Agreement").click()
    expect(panel.locator(".told").nth(1)).to_contain_text("analyst-b has scored 0 of the 10 texts")
    expect(panel.locator("figure .main-svg").first).to_be_visible()
    panel.get_by_role("button", name="Texts").click()
    panel.get_by_label("Order").select_option("random")
    expect(panel).to_have_attribute("data-order", "random")  # before that, keys are for the text that goes
    expect(field(panel, "agency")).to_be_focused()
    for _ in range(12):
        shown = str(panel.get_attribute("data-text"))
        press_scores(lab, tuple(truth(int(shown[-3:])).round().astype(int).tolist()))
        lab.page.keyboard.press("Enter")
        expect(panel).not_to_have_attribute("data-text", str(shown))
    panel.get_by_role("button", name="Agreement").click()
    expect(panel.locator(".told").first).to_contain_text("The first 12 texts of the random order")
    expect(panel.get_by_label("Against").locator("option:checked")).to_have_text("analyst-b")
    rows = panel.locator(".figures tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first.locator("td").first).to_have_text("12")
    expect(panel.locator("figcaption").first).to_contain_text("alpha with analyst-b on each measure")
    expect(panel.locator(".command pre")).to_contain_text("people/analyst-b.jsonl")
    panel.get_by_label("Look closely at").select_option(label="haiku")
    expect(panel.locator("figcaption").filter(has_text="Overall score of haiku")).to_be_visible()
    expect(panel).to_have_attribute("data-figures", "3")
    expect(panel.locator("figure .main-svg").last).to_be_visible()
    picture(lab.page, ".ocr-sprint-calibration .grid", "calibration_agreement")


def test_keys_without_a_pause_are_kept_where_they_were_meant_by_a_slow_kernel(lab: Lab, report: Path) -> None:
    """A kernel that takes 0.3 s for each message, and a hand that goes on while the next text is fetched."""
    slow = "import time\nfrom ocr_sprint.panels.calibration import CalibrationSession\n"
    slow += "answer = CalibrationSession.answer\ndef late(self, kind, body):\n    time.sleep(0.3)\n"
    slow += "    return answer(self, kind, body)\n"
    panel = lab.open("calibration-slow", f"{slow}CalibrationSession.answer = late", cell("slow"), panel=PANEL)
    expect(field(panel, "agency")).to_be_focused()
    typed = {}
    for number in range(3):
        shown = str(panel.get_attribute("data-text"))
        typed[shown] = tuple((score + number) % 9 for score in SCORES)
        press_scores(lab, typed[shown])
        lab.page.keyboard.press("Enter")
        for _ in range(9):
            lab.page.keyboard.press("9")
        expect(panel).not_to_have_attribute("data-text", shown)
        expect(panel.get_by_role("status")).to_contain_text("has scored nothing: type it again")
    until(lambda: len(people(report, "slow").read_text().splitlines()) == 3)
    found = read_people(people(report, "slow"), CONFIG)
    assert {name: tuple(label.scores.values()) for name, label in found.items()} == {
        name: typed[name] for name in found
    }
    journal = people(report, "slow").with_suffix(".journal.jsonl").read_text()
    assert '"value":9' not in journal, "nothing was scored while no text stood there"


def test_a_second_view_follows_the_first(lab: Lab) -> None:
    *before, last = cell("twice").splitlines()
    both = lab.open("calibration-two", "\n".join([*before, f"panel = {last}", "panel"]), "panel", panel=PANEL)
    expect(both).to_have_count(2)
    expect(field(both.nth(1), "agency")).to_be_visible()
    field(both.nth(0), "agency").press("7")
    expect(field(both.nth(1), "agency")).to_have_value("7")
    both.nth(0).get_by_label("Order").select_option("random")
    expect(both.nth(1).get_by_label("Order")).to_have_value("random")
    expect(both.nth(1)).to_have_attribute("data-text", str(both.nth(0).get_attribute("data-text")))


def test_the_notebook_gets_no_key_and_holds_no_text_or_score(lab: Lab) -> None:
    panel = opened(lab, "analyst-c")
    cells = cell_count(lab.page)
    for target in (field(panel, "wonder"), panel.locator(".body"), panel.get_by_role("button", name="Next text")):
        target.focus()
        for key in ("d", "d", "a", "b", "x", "m", "y", "0", "0", "Shift+Enter", "Alt+PageDown", "Alt+PageUp"):
            lab.page.keyboard.press(key)
    panel.get_by_label("Show the models’ scores before mine").check()
    expect(panel.locator(".reasons dt")).to_have_count(4)
    assert cell_count(lab.page) == cells
    assert lab.page.locator(".jp-Dialog").count() == 0
    saved = saved_text(lab.page)
    assert "ocr-sprint-calibration" in saved, "the panel's own program is there"
    assert [word for word in (*PLACES, "gazette-0", "Upper River", "collective_benefit") if word in saved] == []


def test_no_accessibility_violations_in_light_and_in_dark(lab: Lab) -> None:
    panel = opened(lab, "analyst-d")
    press_scores(lab)
    expect(panel.locator(".reasons dt")).to_have_count(4)
    assert violations(lab.page, PANEL) == []
    panel.get_by_role("button", name="Agreement").click()
    expect(panel).to_have_attribute("data-figures", "1")
    assert violations(lab.page, PANEL) == []


def test_the_pictures_of_the_documentation(lab: Lab) -> None:
    panel = opened(lab, "analyst-e")
    press_scores(lab, (7, 8, 9, 6, 3, 2, 4, 1))
    expect(panel.locator(".reasons dt")).to_have_count(4)
    field(panel, "progress").focus()
    picture(lab.page, PANEL, "calibration_panel")
