"""What a notebook that nbdev prepared says, in the terms of README.md and of the documentation site.

nbdev prepares notebooks for Quarto: front matter in a raw cell, options as `#| name: value` comments, links to the
published site, `show_doc` output as Markdown. Everything here is a pure function from text to text.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import PurePosixPath
from typing import Any

import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

OPTION = re.compile(r"^#\|\s*([\w-]+):[ \t]*(.*)$\n?", re.MULTILINE)
# A link or picture whose target has no scheme and is no anchor of its own page.
RELATIVE_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=[)\s])")
FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
HEADING = re.compile(r"^(#{1,6}) ", re.MULTILINE)
SHOWN_SYMBOL = re.compile(
    r"\A(?:---\s+)?(?:\[source\]\((?P<source>[^)]+)\)\{[^}]*\}\s+)?"
    r"#+ (?P<name>\S+)\s+(?P<signature>```.*?\n```)\s*(?P<text>.*)\Z",
    re.DOTALL,
)
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"


def symbol_label(page: str, anchor: str) -> str:
    """Name a symbol's target uniquely within the site."""
    return f"{page}:{anchor.lower()}"


def page_name(notebook: str) -> str:
    """`core/00_files.ipynb` is published as `core/files`: nbdev drops the number that gives the reading order."""
    path = PurePosixPath(notebook)
    return str(path.with_name(re.sub(r"^\d+[a-z0-9]*_", "", path.stem.lower())))


def front_matter(cell: Mapping[str, Any]) -> dict[str, str]:
    """Read title and description from the raw cell that nbdev puts first."""
    parsed = yaml.safe_load(cell["source"].strip().strip("-"))
    return {str(name): str(value) for name, value in parsed.items()}


def markdown_cell(source: str) -> NotebookNode:
    """A Markdown cell of its own."""
    cell: NotebookNode = new_markdown_cell(source)
    return cell


def split_options(source: str) -> tuple[dict[str, str], str]:
    """Part a code cell's Quarto options from its code."""
    options = {name: value.strip() for name, value in OPTION.findall(source)}
    return options, OPTION.sub("", source).strip("\n")


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Apply `change` to each line that is not part of a fenced code block."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        mark = FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark:
            fence = mark[1]
        else:
            line = change(line)
        lines.append(line)
    return "\n".join(lines)


def move_links(markdown: str, new_target: Callable[[str], str]) -> str:
    """Give every relative link and picture the target that `new_target` makes of it; anchors stay."""

    def moved(found: re.Match[str]) -> str:
        return new_target(found[1]) + (found[2] or "")

    return outside_fences(markdown, lambda line: RELATIVE_LINK.sub(moved, line))


def local_links(markdown: str, page: str, address: str) -> str:
    """Turn links into the site published at `address`, and links to notebooks, into links that Sphinx checks."""
    published = re.compile(re.escape(address) + r"/([^)\s#]+)\.html(?:#([^)\s]+))?(?=[)\s])")
    folder = posixpath.dirname(page) or "."

    def symbol(found: re.Match[str]) -> str:
        if found[2]:
            return "#" + symbol_label(found[1], found[2])
        return posixpath.relpath(f"{found[1]}.ipynb", folder)

    def neighbour(target: str) -> str:
        return f"{page_name(target)}.ipynb" if target.endswith(".ipynb") else target

    return move_links(outside_fences(markdown, lambda line: published.sub(symbol, line)), neighbour)


def symbol_section(markdown: str, page: str, level: int, address: str) -> str:
    """Turn what show_doc printed into a section with a target, so that a link to a missing symbol is an error."""
    shown = SHOWN_SYMBOL.match(markdown)
    if shown is None:
        raise ValueError(f"{page}: show_doc printed something else than a symbol: {markdown[:80]!r}")
    source = f"[source]({shown['source']}){{.source-link}}\n\n" if shown["source"] else ""
    # nbdev sets the docstring's first line in italics, which breaks a summary of two lines in the middle.
    text = re.sub(r"\A\*(.*)\*$", r"\1", shown["text"], flags=re.MULTILINE)
    heading = f"({symbol_label(page, shown['name'])})=\n{'#' * level} {shown['name']}"
    return f"{heading}\n\n{source}{shown['signature']}\n\n{local_links(text, page, address)}".rstrip()


def plotly_figure(figure: Mapping[str, Any], page: str) -> str:
    """A stored plotly figure as HTML: its data as JSON, drawn by scripts that the site carries."""
    static = escape("../" * page.count("/") + "_static")
    # "</script>" inside a string would end the element early.
    data = json.dumps({"data": figure["data"], "layout": figure.get("layout", {})}).replace("</", "<\\/")
    return (
        f'<script defer src="{static}/plotly.min.js"></script><script defer src="{static}/figures.js"></script>'
        f'<div class="plotly-figure"><script type="application/json">{data}</script></div>'
    )


def translated_output(output: NotebookNode, page: str, address: str) -> NotebookNode:
    """Make one stored output fit for a page without Jupyter: figures as HTML, widgets as their text."""
    data = output.get("data", {})
    if PLOTLY in data:
        output["data"] = {"text/html": plotly_figure(data[PLOTLY], page)}
    elif "text/markdown" in data:
        data["text/markdown"] = local_links(data["text/markdown"], page, address)
    data.pop(WIDGET, None)
    return output


def translated_cell(cell: NotebookNode, page: str, level: int, address: str) -> NotebookNode | None:
    """One cell of a prepared notebook as Sphinx reads it, or nothing when Quarto would not show it either."""
    if cell.cell_type == "markdown":
        # nbdev's warning that the page is generated has no reader here.
        if cell.source.startswith("<!-- WARNING"):
            return None
        return markdown_cell(local_links(cell.source, page, address))
    if cell.cell_type != "code":
        return None
    options, cell.source = split_options(cell.source)
    if options.get("include") == "false":
        return None
    if cell.source.startswith("show_doc("):
        return markdown_cell(symbol_section(cell.outputs[0]["data"]["text/markdown"], page, level, address))
    cell.outputs = [translated_output(output, page, address) for output in cell.outputs]
    hidden = [("echo", "remove-input"), ("output", "remove-output")]
    cell.metadata["tags"] = [tag for name, tag in hidden if options.get(name) == "false"]
    return cell


def sphinx_notebook(notebook: NotebookNode, page: str, address: str) -> NotebookNode:
    """Translate, in place, a notebook that nbdev prepared for Quarto into one that Sphinx and myst-nb read."""
    facts = front_matter(notebook.cells[0])
    description = f"\n\n{{.lead}}\n{facts['description']}" if "description" in facts else ""
    cells, level = [markdown_cell(f"# {facts['title']}{description}")], 2
    targets: set[str] = set()
    for cell in notebook.cells[1:]:
        changed = translated_cell(cell, page, level, address)
        if changed is None:
            continue
        cells.append(changed)
        # nbdev's links tell `Engine` from `engine` by nothing: the first of them on the page gets both.
        target, _, section = changed.source.partition("\n")
        if target.endswith(")=") and target in targets:
            changed.source = section
        targets.add(target)
        if cell.cell_type == "markdown" and (headings := HEADING.findall(changed.source)):
            level = len(headings[-1]) + 1
    notebook.cells = cells
    # Left in, the widgets' state would make myst-nb load their scripts from a CDN.
    notebook.metadata.pop("widgets", None)
    return notebook
