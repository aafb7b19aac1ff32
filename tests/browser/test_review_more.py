"""More of the review panel in a real JupyterLab: drafts, practice, decisions, long lists, and the service."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from lab import Lab, open_notebook, run_all, saved_text, until, violations
from letters import NAMES, add_letter, new_store
from playwright.sync_api import Locator, expect
from reviewing import OPEN, SERVED, Bench, served

from ocr_sprint.documents.letter import parse_result
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.practice import add_practice_letter, is_practice, mark_practice, planted_errors
from ocr_sprint.review.second_review import conflicts, submit_second
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.tokens import create_token

OWN = """
import os
os.environ["OCR_SPRINT_STORE"] = "sqlite:///{path}"
from ocr_sprint.panels.review import review_panel
review_panel(name="{by}")
"""
PARTS = "import ocr_sprint.panels.desk\nocr_sprint.panels.desk.PART = 3\n" + OPEN


@pytest.fixture
def bench(lab: Lab) -> Bench:
    return Bench(lab)


def test_unsaved_work_survives_a_reload_of_the_page(bench: Bench, root: Path) -> None:
    """Typed values, also the one that the cursor still stands in, a row, and a reason."""
    with new_store(root / "drafts.db") as store:
        job_id, other = add_letter(store, 2), add_letter(store, 1)
        panel = bench.open("drafts")
        expect(panel.locator(".name")).to_have_text("sprint-002.png")
        bench.field("header.perihal").fill("patroli malam")
        bench.page.keyboard.press("Alt+6")
        bench.field("personel[0].nama").focus()
        bench.page.keyboard.press("Alt+n")
        bench.page.keyboard.insert_text("GITA PERMATA")
        bench.page.keyboard.press("Alt+PageDown")
        expect(panel.locator(".name")).to_have_text("sprint-001.png")
        bench.field("header.tempat").fill("Bogor")
        expect(panel.locator(".where")).to_contain_text("1 not saved")
        assert [word for word in ("GITA", "malam", *NAMES) if word in saved_text(bench.page)] == []
        bench.page.on("dialog", lambda dialog: dialog.accept())
        bench.page.reload()
        panel = bench.panel()
        expect(panel.locator(".name")).to_have_text("sprint-001.png")
        expect(bench.field("header.tempat")).to_have_value("Bogor")
        expect(panel.locator(".where")).to_contain_text("2 not saved")
        bench.page.keyboard.press("Alt+PageUp")
        expect(bench.field("personel[1].nama")).to_have_value("GITA PERMATA")
        expect(panel.locator(".trail")).to_contain_text("patroli malam (decided by the reviewer) not saved")
        bench.page.keyboard.press("Control+Enter")
        until(lambda: store.job(job_id).approved)
        assert [person["nama"] for person in store.job(job_id).result["personel"]][1] == "GITA PERMATA"
        assert not store.job(other).approved
        expect(panel.locator(".where")).to_contain_text("1 not saved")


def spoken(path: str) -> str:
    """A path as people read it, rows counted from one."""
    return re.sub(r"\[(\d+)\](\.?)", lambda row: f" row {int(row[1]) + 1}{row[2] and ', '}", path)


def practice(store: Store, numbers: range) -> list[str]:
    """Letters to practise on, from the same letters in a store of their own."""
    mark_practice(store)
    job_ids = []
    with new_store(Path(str(store.engine.url.database) + ".source")) as source:
        for number in numbers:
            job = source.job(add_letter(source, number, doubtful=()))
            names = ("filename", "source_kind", "document_sha256", "pages", "engine", "result", "confidence")
            more = ("field_confidence", "evidence", "review_flags", "ocr_text", "error")
            letter = {name: getattr(job, name) for name in (*names, *more)}
            job_ids.append(add_practice_letter(store, letter, share=0.12))  # type: ignore[arg-type]
    return job_ids


def test_practice_tells_the_reviewer_what_was_missed(bench: Bench, root: Path) -> None:
    with open_store(f"sqlite:///{root / 'practice.db'}", validate=parse_result) as store:
        job_ids = practice(store, range(1, 4))
        order = [job.job_id for job in sorted(store.jobs(), key=lambda job: job.confidence or 0)]
        panel = bench.open("practice")
        caught = planted = 0
        for job_id in order:
            errors = planted_errors(store, job_id)
            expect(panel.locator(".name")).to_have_text(store.job(job_id).filename)
            expect(bench.field("header.perihal")).to_be_visible()
            if errors and not caught:
                bench.field(errors[0].field_path).fill(errors[0].right)
                caught += 1
            planted += len(errors)
            bench.page.keyboard.press("Control+Enter")
            told = panel.locator(".practice")
            expect(told).to_contain_text(store.job(job_id).filename)
            missed = [error for error in errors if (error.field_path, caught) != (errors[0].field_path, 1)]
            for error in missed[1:]:
                expect(told).to_contain_text(
                    f"{spoken(error.field_path)}: “{error.planted}” stood there for “{error.right}”"
                )
        assert len(job_ids) == 3
        assert planted > 2
        panel.get_by_role("button", name="Yours").click()
        figures = panel.get_by_role("note", name="Your own figures")
        expect(figures).to_contain_text(f"You caught {caught} of {planted} planted errors")
        expect(figures.get_by_role("row").nth(1)).to_contain_text("with corrections1")
        assert violations(bench.page, ".ocr-sprint-review") == []
        saved = saved_text(bench.page)
        assert [word for word in (*NAMES, "You caught 1") if word in saved] == []


def test_the_first_reviewer_decides_a_conflict_for_the_first_answer(bench: Bench, root: Path) -> None:
    with new_store(root / "decides.db") as store:
        job_id = add_letter(store, 1)
        store.approve(job_id, edits=[Edit("set", "header.perihal", "patroli malam")], by="reviewer-a")
        second = [Edit("set", "header.perihal", "penjagaan"), Edit("remove", "personel[2]")]
        second.append(Edit("set", "personel[0].nama", "ACHMAD SUBAGYA"))
        submit_second(store, job_id, second, by="reviewer-b")
        panel = bench.open("decides")
        panel.get_by_label("Kind of review").select_option("conflict")
        table = panel.get_by_role("region", name="Where two people differ")
        expect(table.get_by_role("row")).to_have_count(4)
        first = table.get_by_role("button", name="First: header.perihal")
        expect(first).to_be_focused()
        expect(panel.locator(".detail")).to_contain_text("header.perihal")
        taken = table.get_by_role("button", name="Second: personel[0].nama")
        taken.click()
        expect(taken).to_be_focused()
        expect(bench.field("personel[0].nama")).to_have_value("ACHMAD SUBAGYA")
        assert violations(bench.page, ".ocr-sprint-review") == []
        table.get_by_role("button", name="First: personel[0].nama").click()
        expect(bench.field("personel[0].nama")).to_have_value(NAMES[0])
        before = store.job(job_id)
        bench.page.keyboard.press("Control+Enter")
        expect(panel.get_by_role("status").last).to_contain_text("Saved: sprint-001.png, approved")
        assert (store.job(job_id).result, conflicts(store)) == (before.result, [])
        panel.get_by_role("button", name="Look for more").click()
        expect(panel.locator(".message").first).to_contain_text("No letters wait here")


def test_a_list_goes_on_beyond_its_first_part(bench: Bench, root: Path) -> None:
    with new_store(root / "parts.db") as store:
        for number in range(1, 8):
            add_letter(store, number)
        panel = bench.open("parts", PARTS)
        for number in range(7, 0, -1):
            expect(panel.locator(".name")).to_have_text(f"sprint-{number:03}.png")
            expect(panel.locator(".where")).to_contain_text(f"{8 - number} of 7")
            expect(bench.field("header.perihal")).to_be_visible()
            bench.page.keyboard.press("Control+Enter")
        expect(panel.locator(".message").first).to_contain_text("Done: nothing waits in this list")
        until(lambda: all(job.approved for job in store.jobs()))


def test_rows_undo_and_own_figures_over_the_service(bench: Bench, root: Path, tmp_path: Path) -> None:
    with new_store(tmp_path / "served.db") as store, served(store, tmp_path / "s") as service:
        job_id = add_letter(store, 1)
        (root / "reviewer-a.token").write_text(create_token(store, "reviewer-a", "reviewer"))
        panel = bench.open("rows-served", SERVED, service=service)
        bench.field("personel[2].nama").focus()
        bench.page.keyboard.press("Alt+ArrowUp")
        bench.page.keyboard.press("Alt+ArrowUp")
        expect(bench.field("personel[0].nama")).to_have_value(NAMES[2])
        bench.page.keyboard.press("Control+s")
        expect(panel.get_by_role("status").last).to_contain_text("Saved: sprint-001.png")
        people = [person["nama"] for person in store.job(job_id).result["personel"]]
        assert people == [NAMES[2], NAMES[0], NAMES[1]]
        take_back: Locator = panel.get_by_role("button", name="Take back the last saved corrections")
        take_back.click()
        expect(bench.field("personel[0].nama")).to_have_value(NAMES[0])
        bench.field("header.perihal").fill("patroli malam")
        bench.page.keyboard.press("Control+Enter")
        expect(panel.get_by_role("status").last).to_contain_text("Saved: sprint-001.png, approved")
        panel.get_by_role("button", name="Yours").click()
        expect(panel.get_by_role("row", name="with corrections")).to_contain_text("with corrections1")


def test_make_lab_stands_ready_and_opens_the_readers_own_store(bench: Bench, root: Path) -> None:
    """The tutorial as `make lab` opens it, in a folder like the repository's, and its line for one's own letters."""
    tutorial = Path(__file__).resolve().parents[2] / "nbs" / "tutorials" / "00_review.ipynb"
    (root / "nbs" / "tutorials").mkdir(parents=True)
    shutil.copy(tutorial, root / "nbs" / "tutorials" / "00_review.ipynb")
    open_notebook(bench.page, bench.lab.address, "nbs/tutorials/00_review.ipynb")
    run_all(bench.page)
    panel = bench.panel()
    expect(panel.locator(".paper img")).to_be_visible()
    expect(panel.locator(".where")).to_contain_text("1 of 4")
    expect(panel.locator(".where")).to_have_attribute("title", "You review as practice-reviewer")
    with open_store(f"sqlite:///{root / 'demo' / 'practise.db'}", create=False) as store:
        assert is_practice(store)
    with new_store(root / "letters.db") as store:
        job_id = add_letter(store, 1)
        panel = bench.open("own", OWN, by="reviewer-a", path=str(root / "letters.db"))
        expect(bench.field("header.perihal")).to_be_visible()
        bench.page.keyboard.press("Control+Enter")
        until(lambda: store.job(job_id).reviewed_by == "reviewer-a")
        expect(panel.locator(".practice")).to_be_empty()
