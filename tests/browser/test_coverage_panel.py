"""The coverage panel in a real JupyterLab and a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import Lab, cell_count, kernel_value, picture, saved_text, until, use_theme, violations
from playwright.sync_api import expect

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.ground_truth.records import read_records
from ocr_sprint.ground_truth.strategies import Wish
from ocr_sprint.ground_truth.training_files import Job, write_training_set
from ocr_sprint.ground_truth.training_set import Division, build_training_set

SCREEN = ".ocr-sprint-coverage"
READY = f"{SCREEN}[data-painted]"
DIMENSIONS = ("agency", "progress", "collective_benefit", "connection", "innovation", "justice", "resilience", "wonder")
SUBJECTS = ("A well", "The ferry", "Seed rice", "Two bridges", "The library", "Mangroves")
PLACES = ("Rejo", "Tirta", "Sumber Asri", "Wonosari", "Pulau Sepi")
OPEN = """
from ocr_sprint.panels.coverage import coverage_panel
panel = coverage_panel("truth/uplifting/labeled_articles.jsonl", {after}, size=800, output="{name}",
    predictions="truth/uplifting/predictions.jsonl", unlabelled=["truth/uplifting/raw.jsonl"])
panel
"""


def articles(count: int) -> list[dict[str, Any]]:
    """Made-up articles, most of which score low, as articles do."""
    generator = np.random.default_rng(5)
    common = generator.gamma(1.7, 1.3, (count, 1))
    scores = np.clip(np.round(common + generator.normal(0, 0.9, (count, 8)) - np.linspace(0, 1, 8)), 0, 10).astype(int)
    made = []
    for number, row in enumerate(scores.tolist()):
        tier = "impact" if sum(row) > 32 else "connection" if sum(row) > 14 else "not_uplifting"
        title = f"{SUBJECTS[number % 6]} of {PLACES[number % 5]}, part {number}"
        article = {
            "id": f"art-{number}",
            "title": title,
            "source": f"koran {number % 9}",
            "language": ("id", "jv", "en")[number % 3],
        }
        text = f"{title}. Residents met, decided and built it. " * 6
        made.append(
            {
                **article,
                "content": text,
                "uplifting_analysis": {**dict(zip(DIMENSIONS, row, strict=True)), "tier": tier},
            }
        )
    return made


@pytest.fixture(scope="session")
def truth(root: Path) -> Path:
    """Labels with the labeller's summary, and a training set of them."""
    folder = root / "truth" / "uplifting"
    folder.mkdir(parents=True)
    labels = folder / "labeled_articles.jsonl"
    labels.write_text("".join(json.dumps(article) + "\n" for article in articles(4000)))
    wanted = {"source": ["raw/*.jsonl"], "size": 4000, "seed": 42, "prefilter": False}
    told = {"filter": "uplifting/v1", "model": "gemini-2.5-pro", "wanted": wanted, "labelled": 4000, "cost": 15.12}
    told |= {"parameters": {"temperature": 0.0}, "labels_sha256": sha256_hex(labels.read_bytes())}
    (folder / "summary.json").write_text(json.dumps(told))
    raw, guesses = [], []
    for number, article in enumerate(articles(8000)):
        scores = {name: article["uplifting_analysis"][name] for name in DIMENSIONS}
        known = {"labels": scores} if number < 4000 else {}
        said = {name: 0.8 * score + number % 5 / 4 for name, score in scores.items()}
        guesses.append({"id": article["id"], "predictions": said, "oof": True, **known})
        raw += [] if known else [{"id": article["id"], "content": article["content"]}]
    for name, lines in (("predictions", guesses), ("raw", raw)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records, account = read_records([labels])
    made = build_training_set(records, Wish(800), Division())
    write_training_set(root / "training", made, records, Job(Division(), account))
    return labels


def open_panel(lab: Lab, name: str, after: str = '"training"'):
    (lab.root / name).mkdir()
    return lab.open(name, OPEN.format(after=after, name=name), panel=READY)


def test_a_gap_its_price_and_its_records(lab: Lab, truth: Path) -> None:
    panel = open_panel(lab, "gaps")
    page = lab.page
    cell = panel.locator('td[data-row="7"][data-column="9"]')
    expect(cell).to_contain_text("short")
    cell.click()
    count = kernel_value(page, "int(panel.desk.pool.counts('wonder')[9])")
    expect(panel.locator(".records h3")).to_have_text(f"labelled records: wonder 9, {count} record{'s' * (count != 1)}")
    expect(panel.locator(".readout")).to_contain_text("To fill it by more labels drawn alike")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(panel.locator(".records h3")).to_contain_text("resilience 0")
    expect(panel.locator('td[aria-selected="true"]')).to_be_focused()
    panel.locator(".records [data-record]").first.click()
    expect(panel.locator(".record .text")).to_contain_text("Residents met, decided and built it.")
    page.keyboard.press("Escape")
    expect(panel.locator(".record")).to_be_hidden()
    panel.get_by_role("button", name="Write ids").click()
    written = lab.root / "gaps" / "resilience_0_ids.txt"
    until(written.is_file)
    ids = [
        json.loads(line)["id"]
        for line in truth.read_text().splitlines()
        if json.loads(line)["uplifting_analysis"]["resilience"] == 0
    ]
    assert written.read_text().split() == ids
    panel.get_by_role("button", name="Write ids").click()
    expect(panel.get_by_role("alert")).to_contain_text("resilience_0_ids.txt: stands already; choose another name")
    panel.locator(".gaps tbody button").first.click()
    expect(panel.locator(".gaps code").first).to_contain_text(
        "ocr_sprint batch_labeler --filter filters/uplifting/v1 --source 'raw/*.jsonl'"
    )
    expect(panel.locator(".gaps .detail")).to_contain_text("of 4,000 unlabelled texts")
    panel.get_by_role("button", name="Write these texts").click()
    expect(panel.locator(".gaps .detail")).to_contain_text("they are no random sample; it goes to:")
    assert list((lab.root / "gaps").glob("*_*.jsonl"))
    panel.get_by_role("button", name="Write these texts").click()
    expect(panel.get_by_role("alert")).to_contain_text("stands already; choose another name")


@pytest.mark.usefixtures("truth")
def test_two_dimensions_one_tier_before_and_after_survive_a_reload(lab: Lab) -> None:
    panel = open_panel(lab, "after")
    panel.get_by_label("Rows").select_option("tier")
    expect(panel.locator(".corner")).to_have_text("tier ↓ agency →")
    panel.get_by_label("Columns").select_option("wonder")
    expect(panel.locator(".corner")).to_have_text("tier ↓ wonder →")
    panel.get_by_label("Rows").select_option("every dimension")
    panel.get_by_label("Only").select_option("impact")
    expect(panel.locator("caption")).to_contain_text("labelled records with tier impact")
    panel.get_by_label("Only").select_option("all records")
    panel.get_by_role("button", name="Change").click()
    expect(panel.locator("caption")).to_have_text("train against labelled records, in points of percent")
    panel.get_by_role("button", name="Both").click()
    expect(panel.locator("caption")).to_have_text(["labelled records: 4,000", "train: 640"])
    panel.locator('td[data-map="1"][data-row="0"][data-column="8"]').click()
    expect(panel.locator(".records h3")).to_contain_text("train: agency 8")
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.page.reload()
    panel = lab.page.locator(READY)
    expect(panel.locator("caption")).to_have_text(["labelled records: 4,000", "train: 640"])
    expect(panel.locator(".records h3")).to_contain_text("train: agency 8")
    expect(panel.locator(".compared")).to_contain_text("train: 640 of 4,000 records")


@pytest.mark.usefixtures("truth")
def test_nobody_is_shut_out_no_key_leaks_and_nothing_is_saved(lab: Lab) -> None:
    panel = open_panel(lab, "look")
    page, cells = lab.page, cell_count(lab.page)
    panel.locator('td[data-row="7"][data-column="8"]').click()
    panel.locator(".records [data-record]").first.click()
    expect(panel.locator(".record .text")).to_be_visible()
    panel.locator(".gaps tbody button").first.click()
    assert violations(page, SCREEN) == []
    panel.get_by_label("Name of the file").fill("")
    page.keyboard.type("bad dd xx")
    panel.locator('td[data-row="7"][data-column="8"]').focus()
    for key in ("a", "b", "d", "d", "x", "m"):
        page.keyboard.press(key)
    assert cell_count(page) == cells
    expect(panel).to_be_visible()
    saved = saved_text(page)
    texts = ("Residents met", "art-", "koran", *(f"{subject} of" for subject in SUBJECTS))
    assert [text for text in texts if text in saved] == []
    panel.get_by_role("button", name="Close").click()
    panel.locator('td[data-row="7"][data-column="8"]').click()
    expect(panel.get_by_label("Name of the file")).to_have_value("wonder_8_ids.txt")
    page.mouse.move(0, 0)
    expect(panel.locator(".readout")).to_contain_text("wonder 8: 22 records")
    picture(page, SCREEN, "coverage_panel")


@pytest.mark.usefixtures("truth")
def test_a_narrow_page_scrolls_only_inside_its_tables(lab: Lab) -> None:
    panel = open_panel(lab, "narrow", "None")
    page = lab.page
    page.set_viewport_size({"width": 760, "height": 1000})
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    expect(panel.get_by_role("button", name="Both")).to_have_count(0)
    assert page.evaluate(
        "() => { const p = document.querySelector('.ocr-sprint-coverage'); return p.scrollWidth <= p.clientWidth + 1; }"
    )
    use_theme(page, "Dark")
    use_theme(page, "Light")
