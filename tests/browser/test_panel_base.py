"""What every panel shares, before a kernel that the test plays by hand."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest
from playwright.sync_api import BrowserContext, Page, expect

SCREEN = """
class Counting extends Panel {
  constructor(model, host) {
    super(model, host, { name: "counting", label: "Counting" });
    this.told = make("ul");
    this.hearers.count = ({ number }) => this.told.append(make("li", {}, number));
    const button = (label, onclick) => make("button", { type: "button", onclick }, label);
    this.root.append(this.status, this.told,
      button("Throw", () => { throw new Error("a click went wrong"); }),
      button("Reject", async () => { throw new Error("a promise went wrong"); }),
      button("Refuse", () => this.ask("refuse")));
    this.ask("open").then(() => this.listen());
  }
}
export default face(Counting);
"""
RENDER = """async (program) => {
  const module = await import(URL.createObjectURL(new Blob([program], { type: "text/javascript" })));
  window.sent = [];
  const model = {
    on: (_, hear) => { window.tell = hear; },
    off: () => {},
    send: (message) => sent.push(message),
  };
  window.leave = module.default.render({ model, el: document.body });
}"""
ANSWER = "(said) => tell({ id: sent.pop().id, body: {}, ...said }, [])"


@pytest.fixture(autouse=True)
def kernels() -> None:
    """There are none here."""


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A screen that has asked to be opened, and has no answer yet."""
    found = context.new_page()
    shared = (files("ocr_sprint") / "static" / "panel.js").read_text(encoding="utf-8")
    found.evaluate(RENDER, shared + SCREEN)
    yield found
    found.close()


def test_what_is_told_before_the_screen_is_open_is_heard_when_it_is(page: Page) -> None:
    for number in (1, 2):
        page.evaluate("(number) => tell({ kind: 'count', body: { number } }, [])", number)
    expect(page.get_by_role("listitem")).to_have_count(0)
    page.evaluate(ANSWER, {})
    expect(page.get_by_role("listitem")).to_have_text(["1", "2"])
    page.evaluate("tell({ kind: 'count', body: { number: 3 } }, [])")
    expect(page.get_by_role("listitem")).to_have_text(["1", "2", "3"])


@pytest.mark.parametrize(("label", "problem"), [("Throw", "a click went wrong"), ("Reject", "a promise went wrong")])
def test_a_mistake_after_a_click_is_said_by_the_panel_that_made_it(page: Page, label: str, problem: str) -> None:
    page.evaluate(ANSWER, {})
    with page.expect_event("pageerror"):
        page.evaluate("setTimeout(() => { throw new Error('of somebody else'); })")
    expect(page.get_by_role("alert")).to_be_empty()
    page.get_by_role("button", name=label).click()
    expect(page.get_by_role("alert")).to_contain_text(f"The panel made a mistake: {problem}. Reload the page")


def test_a_refusal_is_said_as_the_kernel_said_it(page: Page) -> None:
    page.evaluate(ANSWER, {})
    page.get_by_role("button", name="Refuse").click()
    page.evaluate(ANSWER, {"error": "number: give one digit"})
    expect(page.get_by_role("alert")).to_have_text("number: give one digit")
    page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 50))")
    expect(page.get_by_role("alert")).to_have_text("number: give one digit")
