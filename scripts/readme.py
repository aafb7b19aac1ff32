"""Make README.md and CONTRIBUTING.md from their notebooks, as nbdev prepares them: readme.py [--check].

nbdev's own command for this needs Quarto. With --check nothing is written, and a stale file is an error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from execnb.nbio import nb2str, read_nb
from nbdev.processors import FilterDefaults
from nbformat import NotebookNode

from pages import front_matter, move_links, split_options

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "nbs/index.ipynb", "CONTRIBUTING.md": "nbs/90_contributing.ipynb"}


def output_markdown(output: NotebookNode) -> str:
    """One stored output as Markdown; pictures have to be files that the notebook links to."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    data = output["data"]
    if "text/markdown" in data:
        return str(data["text/markdown"])
    if any(kind.startswith("image/") for kind in data):
        raise SystemExit("readme: a cell's output is a picture: save it under nbs/images and link to it instead")
    return f"```text\n{data['text/plain'].rstrip()}\n```"


def cell_markdown(cell: NotebookNode) -> list[str]:
    """One prepared cell as Markdown blocks."""
    if cell.cell_type == "raw":
        facts = front_matter(cell)
        return [f"# {facts['title']}"] + ([facts["description"]] if "description" in facts else [])
    if cell.cell_type == "markdown":
        # The notebooks lie in nbs/, the files made from them beside that folder.
        return [move_links(cell.source.strip(), lambda target: f"nbs/{target}")]
    options, code = split_options(cell.source)
    shown = [] if options.get("echo") == "false" else [f"```python\n{code}\n```"]
    return shown + [output_markdown(output) for output in cell.outputs if options.get("output") != "false"]


def page_markdown(path: Path) -> str:
    """The whole page for one notebook."""
    notebook = read_nb(path)
    FilterDefaults()(notebook)
    prepared = nbformat.reads(nb2str(notebook), as_version=4)
    return "\n\n".join(block for cell in prepared.cells for block in cell_markdown(cell)) + "\n"


def main() -> int:
    """Write the pages, or say which are stale."""
    parser = argparse.ArgumentParser(description="Make README.md and CONTRIBUTING.md from their notebooks.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is stale")
    check = parser.parse_args().check
    stale = 0
    for name, notebook in PAGES.items():
        path, text = ROOT / name, page_markdown(ROOT / notebook)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            stale += 1
            print(f"readme: {name} is not what {notebook} makes; run scripts/readme.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"readme: wrote {name}")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
