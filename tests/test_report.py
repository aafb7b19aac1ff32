"""Reports: one file that loads nothing, says the same in HTML and Markdown, and cannot be broken by what it shows."""

import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from ocr_sprint.core.errors import UsageError
from ocr_sprint.core.report import MAX_FIGURE_BYTES, Figure, Report, Section, Table, to_html, to_markdown, write_report

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)> | \" & `"
BARS = {"data": [{"type": "bar", "x": ["a", "b"], "y": [1, 2]}], "layout": {"title": {"text": HOSTILE}}}


class Tags(HTMLParser):
    """The elements of a page outside its scripts, with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if not self.found or self.found[-1][0] not in ("script", "style"):
            self.text.append(data)


def report(rows=3, figures=1):
    table = Table(("field", "count", "share"), [(f"header.f{n}", n * 1000, n / 7) for n in range(rows)], "By field.")
    parts = ["One sentence about `header.f1`.\n\n- first\n- second", table]
    parts += [Figure(f"Figure number {n}.", BARS) for n in range(figures)]
    return Report(
        "Corrections", "In short.", [Section("Fields", *parts), Section("Nothing", "No rows.", Table(("a",), []))]
    )


def test_a_page_loads_nothing():
    page = to_html(report())
    loading = {"src", "href", "srcset", "data", "action", "poster"}
    assert [(tag, attrs) for tag, attrs in Tags(page).found if loading & set(attrs)] == []
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_plotly_is_there_once_and_only_when_it_is_needed():
    assert len(to_html(report(figures=0))) < 10_000
    one, many = to_html(report(figures=1)), to_html(report(figures=5))
    assert one.count("Plotly.react") == many.count("Plotly.react")
    assert len(many) - len(one) < 5_000


def test_what_is_shown_cannot_become_part_of_the_page():
    parts = [HOSTILE, Table((HOSTILE,), [(HOSTILE,)], HOSTILE), Figure(HOSTILE, BARS)]
    plain = to_html(report(figures=1))
    page = to_html(Report(HOSTILE, HOSTILE, [Section(HOSTILE, *parts)], language='en" onload="alert(1)'))
    tags = Tags(page).found
    assert {tag for tag, _ in tags} <= {tag for tag, _ in Tags(plain).found}
    assert not any(name.startswith("on") for _, attrs in tags for name in attrs)
    assert sum(tag == "script" for tag, _ in tags) == 3  # the figure's data, plotly, and the lines that draw


def test_html_and_markdown_say_the_same():
    text = re.sub(r"\s+", " ", " ".join(Tags(to_html(report())).text))
    words = re.findall(r"[A-Za-z_.0-9,–]+", re.sub(r"(?m)^\|[ -:|]*\|$", "", to_markdown(report())))
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("make", [lambda data: data, go.Figure], ids=["mapping", "plotly"])
def test_a_figure_of_every_record_is_refused(make):
    small, large = ({"data": [{"type": "scatter", "y": list(range(n))}]} for n in (100, MAX_FIGURE_BYTES))
    assert "scatter" in Figure("few", make(small)).html()
    if make is go.Figure:  # plotly packs numbers, so it takes more of them to be too large
        large = {"data": [{"type": "scatter", "text": [f"letter {n}" for n in range(MAX_FIGURE_BYTES // 8)]}]}
    with pytest.raises(UsageError, match="draw counts, not every record"):
        Figure("many", make(large)).html()


def test_markdown_tables_are_aligned_and_keep_their_columns():
    table = Table(("name", "n"), [("a|b\nc", 1), ("Polres Contoh", 12_345), ("", None)])
    lines = table.markdown().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3] * 5


def test_files_are_whole_and_named_for_what_they_are(tmp_path):
    for name, write in (("a.html", to_html), ("a.md", to_markdown)):
        write_report(report(), tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == write(report())
    with pytest.raises(UsageError, match=r"\.html or \.md"):
        write_report(report(), tmp_path / "a.pdf")
    too_large = Report("T", "S", [Section("A", Figure("many", {"data": ["x" * MAX_FIGURE_BYTES]}))])
    with pytest.raises(UsageError):
        write_report(too_large, tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == to_html(report())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.md"]


def test_an_option_in_code_is_not_broken_at_its_hyphens() -> None:
    page = to_html(Report("Next", "Call `ocr_sprint x --target-count 20000 a--b`.", []))
    assert "<code>ocr_sprint x <span>--target-count</span> 20000 a--b</code>" in page
    assert "code span { white-space: nowrap; }" in page
