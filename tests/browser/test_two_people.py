"""Two people in two browsers, each with a notebook and a kernel, on the same letters: nothing is lost, both see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import Lab, violations
from letters import add_letter, new_store
from playwright.sync_api import expect
from reviewing import OPEN, SERVED, Bench, served

from ocr_sprint.review.store import Store
from ocr_sprint.review.tokens import create_token

A, B = "reviewer-a", "reviewer-b"
Sit = Callable[[], tuple[Bench, Bench]]


@pytest.fixture(params=["store", "service"])
def two(
    request: pytest.FixtureRequest, lab: Lab, another: Callable[[], Lab], root: Path, tmp_path: Path
) -> Iterator[tuple[Store, Sit]]:
    """A store, and a function that seats two people before its letters: at the file, or over HTTP with a token each."""
    name = f"two-{request.node.name}".replace("[", "-").replace("]", "")

    @contextmanager
    def address(store: Store) -> Iterator[tuple[str, str]]:
        if request.param == "store":
            yield OPEN, ""
            return
        for by in (A, B):
            (root / f"{by}.token").write_text(create_token(store, by, "reviewer"))
        with served(store, tmp_path / "s") as service:
            yield SERVED, service

    with new_store(root / f"{name}.db") as store, address(store) as (cell, service):

        def sit() -> tuple[Bench, Bench]:
            people = Bench(lab), Bench(another())
            for bench, by in zip(people, (A, B), strict=True):
                bench.open(name, cell, by=by, service=service)
            return people

        yield store, sit


def test_two_people_on_one_letter_lose_nothing_and_see_each_other(two: tuple[Store, Sit]) -> None:
    """First different fields, then the same field, and at last one who changes nothing."""
    store, sit = two
    job_id = add_letter(store, 1)
    first, second = sit()

    first.field("header.perihal").fill("patroli malam")
    first.page.keyboard.press("Control+s")
    expect(first.panel().locator(".status")).to_contain_text("Saved")

    second.field("header.tempat").fill("Bogor")
    second.page.keyboard.press("Control+s")
    expect(second.panel().get_by_role("alert")).to_contain_text("Not saved")
    expect(second.field("header.perihal")).to_have_value("patroli malam")
    expect(second.field("header.tempat")).to_have_value("Bogor")
    expect(second.panel().locator(".clash")).to_have_count(0)
    expect(second.panel().locator(".trail")).to_contain_text(A)
    second.page.keyboard.press("Control+s")
    expect(second.panel().locator(".status")).to_contain_text("Saved")

    first.field("header.tempat").fill("Jakarta")
    first.field("personel[0].nama").fill("ACHMAD SUBAGYA")
    first.page.keyboard.press("Control+Enter")
    expect(first.panel().get_by_role("alert")).to_contain_text("Not saved")
    expect(first.panel().locator(".clash")).to_contain_text("you: Jakarta; now: Bogor")
    expect(first.field("header.tempat")).to_have_value("Bogor")
    expect(first.field("personel[0].nama")).to_have_value("ACHMAD SUBAGYA")
    expect(first.panel().locator(".trail")).to_contain_text(B)
    assert violations(first.page, ".ocr-sprint-review") == []
    first.page.keyboard.press("Control+Enter")
    expect(first.panel().locator(".status")).to_contain_text("approved")

    second.page.keyboard.press("Control+Enter")
    expect(second.panel().get_by_role("alert")).to_contain_text("Not saved")
    expect(second.panel().locator(".note")).to_contain_text(f"Approved by {A}")
    expect(second.field("personel[0].nama")).to_have_value("ACHMAD SUBAGYA")

    said = [(event.corrected_by, event.field_path, event.new_value) for event in store.events(job_id)]
    assert said == [
        (A, "header.perihal", "patroli malam"),
        (B, "header.tempat", "Bogor"),
        (A, "personel[0].nama", "ACHMAD SUBAGYA"),
    ]
    job = store.job(job_id)
    assert (job.approved, job.reviewed_by) == (True, A)


def test_two_people_in_a_hurry_lose_nothing(two: tuple[Store, Sit]) -> None:
    """Both write into the same field of every letter and approve at once: each value is kept, or shown again."""
    store, sit = two
    job_ids = [add_letter(store, number) for number in range(1, 5)]
    people = dict(zip((A, B), sit(), strict=True))
    for number in range(4, 0, -1):
        for by, bench in people.items():
            expect(bench.panel().locator(".name")).to_have_text(f"sprint-{number:03}.png")
            bench.field("header.perihal").fill(f"{by} {number}")
        for bench in people.values():
            bench.page.keyboard.press("Control+Enter")
    clashes = {by: until_done(bench) for by, bench in people.items()}
    for number, job_id in enumerate(job_ids, 1):
        job = store.job(job_id)
        kept = {event.corrected_by: event.new_value for event in store.events(job_id)}
        assert job.approved
        assert len(kept) == 1, "the second to come was refused, and wrote nothing over it"
        ((winner, value),) = kept.items()
        assert job.result["header"]["perihal"] == value == f"{winner} {number}"
        (loser,) = people.keys() - kept.keys()
        assert f"you: {loser} {number}; now: {value}" in clashes[loser]


def until_done(bench: Bench) -> str:
    """Approve what came back until nothing waits; what was shown as changed by the other."""
    panel, shown = bench.panel(), ""
    done = panel.get_by_text("Done: nothing waits in this list.")
    clash = panel.locator(".clash li")
    while True:
        expect(done.or_(clash).first).to_be_visible()
        if clash.count() == 0:
            expect(panel.locator(".status")).not_to_have_text(re.compile("Saving"))
            if clash.count() == 0:
                return shown
        title = panel.locator(".name").inner_text()
        shown += " ".join(clash.all_inner_texts())
        bench.page.keyboard.press("Control+Enter")
        expect(panel.locator(".name")).not_to_have_text(title)
