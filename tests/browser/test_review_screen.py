"""The review screen before a kernel whose messages the test carries by hand: what comes late, or is done in between."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from letters import add_letter, new_store
from playwright.sync_api import BrowserContext, Page, expect

from ocr_sprint.panels import desk
from ocr_sprint.panels.desk import StoreDesk
from ocr_sprint.panels.screen import program, style
from ocr_sprint.panels.session import ReviewSession
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.store import Store

RENDER = """async ([program, style]) => {
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const module = await import(URL.createObjectURL(new Blob([program], { type: "text/javascript" })));
  const hearers = new Set();
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  window.sent = [];
  window.tell = (message, buffers) => hearers.forEach((hear) => hear(message, buffers.map(bytes)));
  const model = {
    on: (_, hear) => hearers.add(hear),
    off: (_, hear) => hearers.delete(hear),
    send: (message) => sent.push(structuredClone(message)),
  };
  window.another = () => { // a view of the same panel
    window.leave = module.default.render({ model, el: document.body });
  };
  another();
}"""


class Wire:
    """A screen, a kernel's session, and the messages between them."""

    def __init__(self, page: Page, store: Store, by: str = "reviewer-a") -> None:
        self.page, self.told, self.heard = page, [], []
        tell = lambda message, buffers=(): self.told.append((message, buffers))  # noqa: E731
        self.session = ReviewSession(StoreDesk(store, by), tell, in_background=lambda work: work())
        page.evaluate(RENDER, [program("review"), style("review")])
        self.carry()

    def sent(self) -> list[dict]:
        return self.page.evaluate("sent.splice(0)")

    def tell(self, message: dict, *buffers: bytes) -> None:
        texts = [base64.b64encode(each).decode() for each in buffers]
        self.page.evaluate("([message, buffers]) => tell(message, buffers)", [json.loads(json.dumps(message)), texts])

    def carry(self) -> None:
        """Everything that was sent, and the answers, until nothing is sent."""
        while sent := self.sent():
            for message in sent:
                self.session.handle(message)
            answers, self.told = self.told, []
            self.heard += answers
            for message, buffers in answers:
                self.tell(message, *buffers)

    def field(self, path: str):
        return self.page.locator(f'[data-path="{path}"]')

    def press(self, keys: str) -> None:
        self.page.keyboard.press(keys)


@pytest.fixture(autouse=True)
def kernels() -> None:
    """There are none here."""


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    found = context.new_page()
    yield found
    found.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_store(tmp_path / "store.db") as found:
        yield found


def test_approve_right_after_save_waits_for_the_save(page: Page, store: Store) -> None:
    job_id = add_letter(store, 1)
    wire = Wire(page, store)
    wire.field("header.perihal").fill("patroli malam")
    wire.press("Control+s")
    wire.press("Control+Enter")
    wire.press("j")  # meant for a field; the keys stay in the panel, and do nothing
    expect(page.locator(".status")).to_contain_text("then it is approved")
    wire.carry()
    job = store.job(job_id)
    assert (job.approved, job.result["header"]["perihal"], job.version) == (True, "patroli malam", 3)


def test_what_somebody_else_changed_after_the_save_is_looked_at_before_it_is_approved(page: Page, store: Store) -> None:
    job_id = add_letter(store, 1)
    wire = Wire(page, store)
    wire.field("header.perihal").fill("patroli malam")
    wire.press("Control+s")
    wire.press("Control+Enter")
    for message in wire.sent():
        wire.session.handle(message)
    store.correct(job_id, [Edit("set", "header.tempat", "Bogor")], by="reviewer-b", expected_version=None)
    answers, wire.told = wire.told, []
    for message, buffers in answers:
        wire.tell(message, *buffers)
    wire.carry()
    expect(page.get_by_role("alert")).to_contain_text("somebody else has changed it since")
    expect(wire.field("header.tempat")).to_have_value("Bogor")
    assert not store.job(job_id).approved


def test_a_refused_letter_is_told_of_until_it_is_opened(page: Page, store: Store) -> None:
    job_ids = {f"sprint-{number:03}.png": add_letter(store, number) for number in (1, 2, 3)}
    wire = Wire(page, store)
    name = page.locator(".name").inner_text()
    wire.field("header.perihal").fill("patroli malam")
    wire.press("Control+Enter")
    store.correct(job_ids[name], [Edit("set", "header.perihal", "razia")], by="reviewer-b", expected_version=None)
    wire.carry()
    notice = page.locator(".notice")
    expect(notice).to_contain_text(f"Not saved: {name}")
    wire.press("Alt+PageDown")
    wire.carry()
    expect(notice).to_contain_text(f"Not saved: {name}")
    notice.get_by_role("button", name="Go to it").click()
    wire.carry()
    expect(page.locator(".name")).to_have_text(name)
    expect(notice).to_have_count(0)
    expect(page.locator(".clash")).to_contain_text("you: patroli malam; now: razia")


def test_a_refusal_after_another_list_was_chosen_opens_no_other_letter(page: Page, store: Store) -> None:
    job_id = add_letter(store, 1, doubtful=("header.perihal",))
    add_letter(store, 2)
    wire = Wire(page, store)
    expect(page.locator(".name")).to_have_text("sprint-001.png")
    wire.field("header.perihal").fill("patroli malam")
    wire.press("Control+Enter")
    store.correct(job_id, [Edit("set", "header.perihal", "razia")], by="reviewer-b", expected_version=None)
    saving = wire.sent()
    empty = {
        "form": [],
        "reasons": [],
        "letters": [],
        "drafts": [],
        "total": 0,
        "after": None,
        "current": None,
        "own": None,
    }
    wire.tell({"kind": "letters", "wanted": {"mode": "conflict"}, "reviewer": "reviewer-a", **empty})
    for message in saving:
        wire.session.handle(message)
    for message, buffers in wire.told:
        wire.tell(message, *buffers)
    expect(page.locator(".notice")).to_contain_text("Not saved: sprint-001.png")
    expect(page.locator(".fields")).to_have_text("No letters wait here.")
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_second_review_is_not_handed_in_by_a_save(page: Page, store: Store) -> None:
    job_id = add_letter(store, 1)
    store.approve(job_id, by="reviewer-b", expected_version=None)
    wire = Wire(page, store)
    page.get_by_label("Kind of review").select_option("second")
    wire.carry()
    wire.field("header.perihal").fill("patroli malam")
    wire.press("Control+s")
    expect(page.locator(".status")).to_contain_text("handed in as a whole")
    assert [message["kind"] for message in wire.sent()] == ["check"]


def test_the_mistake_of_a_screen_is_said(page: Page, store: Store) -> None:
    add_letter(store, 1)
    wire = Wire(page, store)
    wire.tell({"kind": "sheet", "sheet": None, "draft": None})
    expect(page.get_by_role("alert")).to_contain_text("The panel made a mistake")


def test_what_another_view_was_told_is_not_taken_for_ones_own(page: Page, store: Store) -> None:
    job_id = add_letter(store, 1)
    wire = Wire(page, store)
    page.evaluate("another()")
    wire.carry()
    wire.field("header.perihal").first.fill("patroli malam")
    wire.press("Tab")
    wire.field("header.tanggal").last.fill("nanti")
    wire.press("Tab")
    wire.carry()
    expect(wire.field("header.tanggal").last).to_have_class(re.compile("odd"))
    wire.field("header.perihal").first.focus()
    wire.press("Control+Enter")
    wire.carry()
    assert store.job(job_id).approved


def test_a_view_that_is_closed_leaves_no_picture_and_no_clock_behind(page: Page, store: Store) -> None:
    """Two pictures are still being decoded when the view is closed."""
    add_letter(store, 1)
    add_letter(store, 2)
    page.evaluate(
        """() => {
          window.urls = new Set();
          window.watched = 0;
          const [make, drop] = [URL.createObjectURL, URL.revokeObjectURL];
          URL.createObjectURL = (blob) => {
            const url = make.call(URL, blob);
            if (blob.type === "image/jpeg") urls.add(url);
            return url;
          };
          URL.revokeObjectURL = (url) => { urls.delete(url); drop.call(URL, url); };
          HTMLImageElement.prototype.decode = () => new Promise((done) => { (window.late ??= []).push(done); });
          const { observe, disconnect } = ResizeObserver.prototype;
          ResizeObserver.prototype.observe = function (node) { watched += 1; observe.call(this, node); };
          ResizeObserver.prototype.disconnect = function () { watched -= 1; disconnect.call(this); };
        }"""
    )
    Wire(page, store)
    assert page.evaluate("[urls.size, watched]") == [2, 1]
    page.evaluate(
        "async () => { leave(); late.forEach((done) => done()); await new Promise((done) => setTimeout(done)); }"
    )
    assert page.evaluate("[urls.size, watched]") == [0, 0]


def test_a_sheet_that_comes_again_after_the_last_letter_opens_nothing(page: Page, store: Store) -> None:
    add_letter(store, 1)
    wire = Wire(page, store)
    again = next(message for message, _ in wire.heard if message["kind"] == "sheet")
    wire.press("Control+Enter")
    wire.tell(again)
    expect(page.locator(".message").first).to_contain_text("Done: nothing waits in this list")
    wire.carry()
    wire.tell(again)
    expect(page.locator(".message").first).to_contain_text("Done: nothing waits in this list")


def test_a_filter_offers_what_stands_behind_the_first_part_and_keeps_the_focus(
    page: Page, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "PART", 1)
    for number in range(2):
        add_letter(store, number, doubtful=("personel[0].nama", "header.perihal"))
    add_letter(store, 2, doubtful=("header.perihal",), flag="rare")
    wire = Wire(page, store)
    menu = page.get_by_label("Flag", exact=True)
    assert menu.locator("option").all_inner_texts() == ["every flag", "nama_berangka (2)", "rare (1)"]
    menu.select_option("rare")
    wire.carry()
    expect(menu).to_have_value("rare")
    expect(page.locator(".name")).to_have_text("sprint-002.png")
    told = next(message for message, _ in reversed(wire.heard) if message["kind"] == "choices")
    assert told["wanted"]["flag"] == "rare"
    menu.focus()
    wire.tell({**told, "flags": [{"value": "rare", "jobs": 1}]})
    expect(menu.locator("option")).to_have_count(2)
    expect(menu).to_be_focused()
    wire.tell({**told, "wanted": {**told["wanted"], "flag": None}, "flags": []})  # of a list that is not in sight
    assert menu.locator("option").count() == 2


def test_where_there_are_no_tokens_a_name_is_said_to_be_all(page: Page, store: Store) -> None:
    add_letter(store, 1)
    wire = Wire(page, store)
    page.get_by_role("button", name="Yours").click()
    note = page.get_by_role("note", name="Your own figures")
    expect(note).to_contain_text("whoever opens this panel under the name reviewer-a sees these figures")
    own = next(message for message, _ in wire.heard if message["kind"] == "own")
    wire.tell({**own, "own": {**own["own"], "by_name": False}})
    expect(note).to_contain_text("Only you see these figures.")


def test_each_letter_begins_at_its_head(page: Page, store: Store) -> None:
    for number in (1, 2):
        add_letter(store, number, people=30)
    wire = Wire(page, store)
    form = page.locator(".fields")
    form.evaluate("(node) => { node.scrollTop = 600; }")
    assert form.evaluate("(node) => node.scrollTop") > 0
    wire.press("Alt+PageDown")
    wire.carry()
    expect(page.locator(".where")).to_contain_text("2 of 2")
    expect(form.locator("[data-path]").first).to_be_visible()
    assert form.evaluate("(node) => node.scrollTop") == 0


def test_rows_are_counted_from_one_before_people(page: Page, store: Store) -> None:
    add_letter(store, 1, doubtful=("personel[1].nama",))
    wire = Wire(page, store)
    expect(page.locator(".detail")).to_contain_text("personel row 2, nama")
    wire.field("personel[1].nama").fill("GITA PERMATA")
    wire.press("Tab")
    wire.carry()
    expect(page.get_by_role("region", name="Audit trail")).to_contain_text("personel row 2, nama: ")


def test_escape_closes_what_lies_open_first_and_only_one_thing_lies_open(page: Page, store: Store) -> None:
    add_letter(store, 1)
    wire = Wire(page, store)
    keys, yours = page.get_by_role("button", name="Keys"), page.get_by_role("button", name="Yours")
    keys.click()
    expect(page.locator(".help")).to_be_visible()
    yours.click()
    expect(page.locator(".help")).to_be_hidden()
    expect(page.locator(".own")).to_be_visible()
    wire.field("header.perihal").focus()
    wire.press("Escape")
    expect(page.locator(".own")).to_be_hidden()
    expect(yours).to_have_attribute("aria-expanded", "false")
    expect(wire.field("header.perihal")).to_be_focused()


def test_an_empty_second_review_says_whose_letters_are_not_in_it(page: Page, store: Store) -> None:
    job_id = add_letter(store, 1)
    store.approve(job_id, by="reviewer-a", expected_version=None)
    wire = Wire(page, store)
    page.get_by_label("Kind of review").select_option("second")
    wire.carry()
    expect(page.locator(".fields")).to_contain_text("Your own are not among them")
