"""The selection panel in a real JupyterLab and a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import Lab, cell_count, kernel_value, picture, saved_text, until, violations
from playwright.sync_api import Locator, expect
from scored_samples import DIMENSIONS, write_labels

READY = ".ocr-sprint-selection[data-painted]"
OPEN = """
from ocr_sprint.panels.selection import selection_panel
panel = selection_panel("datasets/{name}/labeled_articles.jsonl", target_size=500)
panel
"""


def over(name: str) -> pytest.MarkDecorator:
    """The panel of a test stands over a corpus of this name."""
    return pytest.mark.parametrize("opened", [name], indirect=True)


@pytest.fixture
def opened(lab: Lab, root: Path, request: pytest.FixtureRequest) -> Locator:
    """The panel over a corpus of its own, and its first result."""
    name = request.param
    folder = root / "datasets" / name
    folder.mkdir(parents=True)
    write_labels(folder / "labeled_articles.jsonl", 3000, copies=20)
    return lab.open(name, OPEN.format(name=name), panel=READY)


def settled(panel: Locator) -> None:
    """Wait until what is shown is what was asked for."""
    expect(panel).to_have_attribute("data-current", "")


def command(panel: Locator) -> Locator:
    return panel.locator(".command code")


@over("files")
def test_settings_lead_to_a_result_a_command_and_files(opened: Locator, lab: Lab, root: Path) -> None:
    expect(opened.locator(".one")).to_have_count(len(DIMENSIONS) + 1)
    expect(opened.locator(".one .plot svg.main-svg").first).to_be_visible()
    expect(opened.locator(".verdict")).to_contain_text("400 records by maximize_coverage")
    expect(opened.locator(".splits")).to_contain_text("0 of 3,000 groups")
    opened.get_by_label("Strategy").select_option("extreme_focus")
    opened.get_by_label("Floor", exact=True).fill("20")
    expect(command(opened)).to_contain_text("--strategy extreme_focus --floor 20")
    expect(opened.locator(".verdict")).to_contain_text("400 records by extreme_focus")
    expect(opened.locator(".floors")).to_contain_text("floors bind; together they cost")
    opened.locator("summary", has_text="Weights").click()
    opened.get_by_role("spinbutton", name=DIMENSIONS[0]).fill("2.5")
    expect(command(opened)).to_contain_text(f"--floor 20 --weights {DIMENSIONS[0]}=2.5")
    expect(opened.locator(".verdict")).to_contain_text(f"places count by weight ({DIMENSIONS[0]}=2.5)")
    assert violations(lab.page, ".ocr-sprint-selection .weights") == []
    opened.get_by_label("Folder").fill("chosen")
    opened.get_by_role("button", name="Write the files").click()  # which ends the typing: the click counts
    expect(opened.locator(".said")).to_have_text(
        "Wrote chosen: train 400, val 50, test 50. Read selection_report.html there first."
    )
    manifest = json.loads((root / "chosen" / "manifest.json").read_text())
    assert (manifest["wish"]["strategy"], manifest["wish"]["floor"]) == ("extreme_focus", 20)
    assert manifest["wish"]["weights"] == {DIMENSIONS[0]: 2.5}
    assert manifest["digest"] == kernel_value(lab.page, "panel.desk.answer('open', {})['result']['digest']")
    opened.get_by_role("button", name="Write the files").click()
    expect(opened.locator(".offer")).to_contain_text("chosen holds a training set already.")
    (root / "chosen" / "train.jsonl").unlink()
    opened.get_by_role("button", name="Replace its files").click()
    until(lambda: (root / "chosen" / "manifest.json").exists() and (root / "chosen" / "train.jsonl").exists())
    expect(opened.locator(".said")).to_contain_text("Wrote chosen")


@over("sliders")
def test_only_the_newest_setting_is_shown_and_a_bad_one_keeps_the_last_good(opened: Locator, lab: Lab) -> None:
    slider = opened.get_by_label("Records, slider")
    slider.focus()
    for _ in range(30):
        lab.page.keyboard.press("ArrowRight")
    expect(opened.get_by_label("Records", exact=True)).to_have_value("530")
    expect(opened.locator(".verdict")).to_contain_text("424 records")
    opened.get_by_label("Train", exact=True).fill("0.5")
    expect(opened.locator(".outcome > .problem")).to_contain_text("0.5 + 0.1 + 0.1 = 0.7; they must add up to 1")
    expect(opened.locator(".outcome > .problem")).to_contain_text("Below stands the last good result")
    expect(opened.locator(".verdict")).to_contain_text("424 records")
    expect(opened.get_by_role("button", name="Write the files")).to_be_disabled()
    opened.get_by_role("button", name="Undo").click()
    expect(opened.get_by_label("Train", exact=True)).to_have_value("0.8")
    expect(opened.locator(".outcome > .problem")).to_be_empty()
    opened.get_by_label("Records", exact=True).fill("99999")
    expect(opened.locator(".outcome > .problem")).to_contain_text("99999 records are wanted and 3020 can be used")
    opened.get_by_role("button", name="Undo").click()
    settled(opened)
    opened.get_by_role("button", name="Undo").click()
    expect(opened.get_by_label("Records", exact=True)).not_to_have_value("99999")
    opened.get_by_role("button", name="Redo").click()
    expect(opened.get_by_label("Records", exact=True)).to_have_value("530")
    settled(opened)


def focused(panel: Locator) -> str:
    """The text of what has the keyboard's focus; empty when that is not in the panel."""
    return str(
        panel.evaluate("(root) => (root.contains(document.activeElement) ? document.activeElement.textContent : '')")
    )


@over("keys")
def test_the_focus_stays_in_the_panel_when_what_has_it_comes_to_its_end(opened: Locator, lab: Lab) -> None:
    opened.get_by_label("Folder").fill("by keys")
    settled(opened)
    opened.get_by_role("button", name="Undo").focus()
    lab.page.keyboard.press("Enter")
    expect(opened.get_by_role("button", name="Undo")).to_have_attribute("aria-disabled", "true")
    assert focused(opened) == "Undo"
    lab.page.keyboard.press("Enter")  # there is nothing to undo
    opened.get_by_role("button", name="Redo").focus()
    lab.page.keyboard.press("Enter")
    expect(opened.get_by_role("button", name="Redo")).to_have_attribute("aria-disabled", "true")
    assert focused(opened) == "Redo"
    expect(opened.get_by_label("Folder")).to_have_value("by keys")
    settled(opened)
    opened.get_by_role("button", name="Write the files").focus()
    lab.page.keyboard.press("Enter")
    expect(opened.locator(".said")).to_contain_text("Wrote by keys")
    assert focused(opened) == "Write the files"
    lab.page.keyboard.press("Enter")
    expect(opened.get_by_role("button", name="Replace its files")).to_be_focused()
    lab.page.keyboard.press("Enter")
    expect(opened.locator(".offer")).to_be_hidden()
    assert focused(opened) == "Write the files"
    expect(opened.locator(".said")).to_contain_text("Wrote by keys")


@over("long")
def test_long_work_says_how_far_it_is_and_what_is_proved(opened: Locator, lab: Lab) -> None:
    """The kernel tells of a turn that never ends: what is shown of it does not depend on how fast anything is."""
    told = "solving … at most 0.9876"
    kernel_value(lab.page, "setattr(panel.desk._worker, 'turn', 99)")
    tell = "panel.tell({kind!r}, {{'turn': 99, {body}}})"
    state = "**panel.desk.answer('open', {})['state'], 'turn': 99, 'busy': True"
    kernel_value(lab.page, tell.format(kind="state", body=state))
    expect(opened.get_by_role("status").filter(has_text="solving …")).to_be_visible()
    kernel_value(lab.page, tell.format(kind="grouping", body="'line': 'comparing texts: 40% of 3,020'"))
    expect(opened.get_by_role("status").filter(has_text="40% of 3,020")).to_be_visible()
    kernel_value(lab.page, tell.format(kind="bound", body=f"'line': {told!r}"))
    expect(opened.get_by_role("status").filter(has_text=told)).to_be_visible()
    expect(opened.locator(".verdict")).to_contain_text("400 records")


@over("uplifting")
def test_it_is_accessible_keeps_its_keys_and_looks_as_in_the_documentation(opened: Locator, lab: Lab) -> None:
    opened.get_by_label("Floor", exact=True).fill("25")
    expect(opened.locator(".floors")).to_contain_text("floors bind")
    settled(opened)
    cells = cell_count(lab.page)
    for label in ("Strategy", "Records", "Folder"):
        opened.get_by_label(label, exact=True).focus()
        for key in ("a", "b", "x", "d", "d", "m", "Shift+Enter", "Control+Enter"):
            lab.page.keyboard.press(key)
        lab.page.keyboard.press("Escape")
    opened.get_by_label("Folder").fill("datasets/training_500")
    opened.get_by_label("Strategy").select_option("maximize_coverage")
    opened.get_by_label("Records", exact=True).fill("500")
    settled(opened)
    assert cell_count(lab.page) == cells
    assert violations(lab.page, ".ocr-sprint-selection") == []
    picture(lab.page, ".ocr-sprint-selection", "selection_panel")


@over("saved")
def test_a_saved_notebook_holds_nothing_of_the_corpus_and_the_panel_survives_a_reload(
    opened: Locator, lab: Lab
) -> None:
    opened.get_by_label("Records", exact=True).fill("700")
    expect(opened.locator(".verdict")).to_contain_text("560 records")
    saved = saved_text(lab.page)
    assert "ocr-sprint-selection" in saved, "the panel's own program is there"
    assert [
        word
        for word in ("resilience", "innovation", "justice", "artikel-1", "3,020", "koran", "impact", "training_")
        if word in saved
    ] == []
    lab.page.on("dialog", lambda dialog: dialog.accept())
    lab.page.reload()
    lab.page.wait_for_selector(READY)
    expect(opened.locator(".verdict")).to_contain_text("560 records")
    expect(opened.get_by_label("Records", exact=True)).to_have_value("700")
