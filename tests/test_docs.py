"""The documentation site: what the translation of a prepared notebook does, and what fails the build."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from docs import build, site_problems, toctrees
from pages import local_links, move_links, page_name, plotly_figure, sphinx_notebook, split_options, symbol_section

ADDRESS = "https://docs.example/ocr_sprint"
SHOWN = """---

[source](https://code.example/files.py#L3){target="_blank" style="float:right; font-size:smaller"}

### read_jsonl

```python
def read_jsonl(
    path:Path, # the file
)->None:
```

*Read a file whose lines are JSON*
or say which is not."""


def prepared(*cells: NotebookNode) -> NotebookNode:
    """A notebook as nbdev prepares it."""
    facts = new_raw_cell("---\ndescription: Streams.\noutput-file: files.html\ntitle: Files\n\n---\n\n")
    return new_notebook(cells=[facts, new_markdown_cell("<!-- WARNING: generated -->"), *cells])


@pytest.mark.parametrize(
    ("notebook", "page"),
    [("index.ipynb", "index"), ("core/00_files.ipynb", "core/files"), ("documents/05a_Dice.ipynb", "documents/dice")],
)
def test_pages_are_named_as_nbdev_publishes_them(notebook: str, page: str) -> None:
    assert page_name(notebook) == page


def test_options_are_parted_from_code() -> None:
    assert split_options("#| echo: false\n#| output: asis\nshow_doc(f)") == (
        {"echo": "false", "output": "asis"},
        "show_doc(f)",
    )
    assert split_options("rate = {'a': 1}  # not an option: this") == ({}, "rate = {'a': 1}  # not an option: this")


@pytest.mark.parametrize(
    ("written", "made"),
    [
        (f"[`work`]({ADDRESS}/core/work.html#work)", "[`work`](#core/work:work)"),
        (f"[`Work`]({ADDRESS}/core/work.html#Work.Run)", "[`Work`](#core/work:work.run)"),
        (f"[work]({ADDRESS}/core/work.html)", "[work](work.ipynb)"),
        (f"[letter]({ADDRESS}/documents/letter.html)", "[letter](../documents/letter.ipynb)"),
        ("[a letter](../tutorials/01_letter.ipynb#scan)", "[a letter](../tutorials/letter.ipynb#scan)"),
        ("![](scan.png)", "![](scan.png)"),
        ("[elsewhere](https://other.example/01_a.ipynb)", "[elsewhere](https://other.example/01_a.ipynb)"),
        ("```\n[a](01_a.ipynb)\n```\n[a](01_a.ipynb)", "```\n[a](01_a.ipynb)\n```\n[a](a.ipynb)"),
    ],
)
def test_links_become_local(written: str, made: str) -> None:
    assert local_links(written, "core/files", ADDRESS) == made


def test_relative_links_move_and_others_stay() -> None:
    text = "[a](a.ipynb#b), ![c](images/c.png), [d](#d), [e](mailto:e@f.example), [g](https://g.example)"
    expected = "[a](nbs/a.ipynb#b), ![c](nbs/images/c.png), [d](#d), [e](mailto:e@f.example), [g](https://g.example)"
    assert move_links(text, lambda target: f"nbs/{target}") == expected


def test_a_shown_symbol_is_a_section_with_a_target() -> None:
    section = symbol_section(SHOWN, "core/files", 4, ADDRESS)
    assert section.startswith("(core/files:read_jsonl)=\n#### read_jsonl\n\n[source](https://code.example/files.py#L3)")
    assert section.endswith("```\n\nRead a file whose lines are JSON\nor say which is not.")


def test_other_output_of_show_doc_is_refused() -> None:
    with pytest.raises(ValueError, match="core/files: show_doc printed something else"):
        symbol_section("None", "core/files", 3, ADDRESS)


def test_a_figure_cannot_leave_its_script_element() -> None:
    figure = {"data": [{"name": "</script><script>alert(1)"}], "layout": {}}
    page = plotly_figure(figure, "tutorials/letter")
    assert 'src="../_static/plotly.min.js"' in page
    stored = page.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(stored) == figure


def test_a_notebook_becomes_a_page() -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider(value=3)"}
    notebook = prepared(
        new_markdown_cell("## Reading"),
        new_code_cell(
            "#| echo: false\nshow_doc(read_jsonl)", outputs=[new_output("display_data", {"text/markdown": SHOWN})]
        ),
        new_code_cell("#| include: false\nsecret = 1"),
        new_code_cell("#| echo: false\nslider", outputs=[new_output("display_data", widget)]),
    )
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    page = sphinx_notebook(notebook, "core/files", ADDRESS)
    title, reading, symbol, slider = page.cells
    assert title.source == "# Files\n\n{.lead}\nStreams."
    assert reading.source == "## Reading"
    assert symbol.source.startswith("(core/files:read_jsonl)=\n### read_jsonl")
    assert (slider.source, slider.metadata["tags"]) == ("slider", ["remove-input"])
    assert slider.outputs[0]["data"] == {"text/plain": "IntSlider(value=3)"}
    assert "widgets" not in page.metadata


def test_one_of_two_symbols_that_differ_in_case_has_the_target() -> None:
    def shown(name: str) -> NotebookNode:
        output = new_output("display_data", {"text/markdown": SHOWN.replace("read_jsonl", name)})
        return new_code_cell(f"show_doc({name})", outputs=[output])

    first, second = sphinx_notebook(prepared(shown("Engine"), shown("engine")), "core/files", ADDRESS).cells[1:]
    assert first.source.startswith("(core/files:engine)=\n## Engine")
    assert second.source.startswith("## engine")


def test_tutorials_come_first_and_lone_pages_last() -> None:
    contents = [
        "index.ipynb",
        "90_contributing.ipynb",
        {"section": "core", "contents": ["core/00_errors.ipynb"]},
        {"section": "tutorials", "contents": ["tutorials/01_letter.ipynb"]},
    ]
    captions = [tree.split(":caption: ")[1].split() for tree in toctrees(contents)]
    expected = [["Tutorials", "tutorials/letter"], ["Core", "core/errors"], ["Project", "contributing"]]
    assert [words[:2] for words in captions] == expected


def test_pages_of_a_folder_inside_a_folder_are_listed() -> None:
    inner = {"section": "migrations", "contents": ["review/migrations/01_three_tables.ipynb"]}
    (tree, _) = toctrees([{"section": "review", "contents": ["review/00_fieldpath.ipynb", inner]}])
    assert tree.split(":caption: ")[1].split() == [
        "Review",
        "review/fieldpath",
        "review/migrations/three_tables",
        "```",
    ]


@pytest.mark.parametrize(("link", "fails"), [("#core/files:read_jsonl", False), ("#core/files:gone", True)])
def test_a_link_to_a_missing_symbol_fails_the_build(tmp_path: Path, link: str, fails: bool) -> None:
    shown = new_code_cell("show_doc(read_jsonl)", outputs=[new_output("display_data", {"text/markdown": SHOWN})])
    formula = new_markdown_cell(f"See [this]({link}): $x^2$ for $5 and $6.")
    source, site = tmp_path / "source", tmp_path / "html"
    source.mkdir()
    page = sphinx_notebook(prepared(shown, formula), "core/files", ADDRESS)
    nbformat.write(page, source / "index.ipynb")
    if fails:
        with pytest.raises(SystemExit, match="each is an error"):
            build(source, site)
        return
    build(source, site)
    html = (site / "index.html").read_text(encoding="utf-8")
    assert html.count("<math ") == 1
    assert "for $5 and $6." in html
    assert site_problems(site) == []


def test_what_a_page_loads_or_links_to_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<h1 id="top">Other</h1>', encoding="utf-8")
    (tmp_path / "site.css").write_text("a { background: url('//cdn.example/a.png') }", encoding="utf-8")
    (tmp_path / "index.html").write_text(
        """<link rel="canonical" href="https://docs.example"><link rel="stylesheet" href="site.css?v=1">
        <link rel="stylesheet" href="https://cdn.example/a.css"><script src="//cdn.example/a.js"></script>
        <img src="data:image/png;base64,AA=="><img src="gone.png"><img srcset="https://cdn.example/b.png 2x">
        <a href="https://elsewhere.example">fine</a><a href="mailto:a@b.example">fine</a>
        <a href="other.html#top">fine</a>
        <a href="gone.html">gone</a><a href="other.html#gone">gone</a><a href="#gone">gone</a>""",
        encoding="utf-8",
    )
    assert site_problems(tmp_path) == [
        "index.html: loads https://cdn.example/a.css",
        "index.html: loads //cdn.example/a.js",
        "index.html: loads https://cdn.example/b.png",
        "index.html: nothing at gone.png",
        "index.html: nothing at gone.html",
        "index.html: nothing at other.html#gone",
        "index.html: nothing at #gone",
        "site.css: loads //cdn.example/a.png",
    ]
