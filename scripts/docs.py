"""Build the documentation site in _site/html from the notebooks' stored outputs, without Quarto and without a network.

nbdev prepares the notebooks, pages.py translates them, Sphinx builds them with warnings as errors, and the last step
reads what came out: a page that would load anything from another host, or that links to nothing, fails the build.
"""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import chdir
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import fastcore.docments
import nbformat
import yaml
from nbdev import processors
from nbdev.quarto import nbdev_sidebar
from nbdev.serve import proc_nbs

from pages import markdown_cell, page_name, sphinx_notebook

ROOT = Path(__file__).resolve().parent.parent
PREPARED = ROOT / "_proc"
SOURCE = ROOT / "_site" / "source"
HTML = ROOT / "_site" / "html"
PICTURES = {".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"}
# Links that make a browser fetch something to show the page.
FETCHING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "manifest"}


def published_address() -> str:
    """Where Quarto publishes the site, as nbdev writes it into every link to a symbol."""
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    return settings["DEFAULT"]["doc_host"] + settings["DEFAULT"]["doc_baseurl"]


def pages_of(section: Mapping[str, Any]) -> Iterator[str]:
    """The pages of a section of nbdev's sidebar; those of a folder inside it stand where the folder stands."""
    for entry in section["contents"]:
        if isinstance(entry, str):
            yield page_name(entry)
        else:
            yield from pages_of(entry)


def toctrees(contents: Sequence[Any]) -> Iterator[str]:
    """The toctrees of nbdev's sidebar: tutorials before the reference, pages that stand alone last."""
    sections = [entry for entry in contents if isinstance(entry, dict)]
    sections.sort(key=lambda section: section["section"] != "tutorials")
    alone = [entry for entry in contents if isinstance(entry, str) and entry != "index.ipynb"]
    for section in [*sections, {"section": "project", "contents": alone}]:
        pages = "\n".join(pages_of(section))
        yield f"```{{toctree}}\n:hidden:\n:caption: {section['section'].replace('_', ' ').capitalize()}\n\n{pages}\n```"


def lenient_signature(symbol: Any, *, eval_str: bool) -> inspect.Signature:
    """A signature whose annotations may name what only type checkers import; show_doc prints them as written."""
    try:
        return inspect.signature(symbol, eval_str=eval_str)
    except NameError:
        return inspect.signature(symbol)


runs = processors._do_eval


def runs_for_docs(cell: Any) -> bool:
    """Whether nbdev runs a cell for show_doc: none that needs torch, which the site is built without."""
    return "train" not in cell.directives_ and bool(runs(cell))


def prepare() -> None:
    """Let nbdev prepare the notebooks and write Sphinx's copy of them."""
    shutil.rmtree(ROOT / "_site", ignore_errors=True)
    nbdev_sidebar.__wrapped__(force=True)
    # Without workers nbdev runs in this process, where show_doc can be helped; a notebook's cell may change the folder.
    signatures = patch.object(fastcore.docments, "signature", lenient_signature)
    with chdir(ROOT), signatures, patch.object(processors, "_do_eval", runs_for_docs):
        proc_nbs(force=True, n_workers=0)
    contents = yaml.safe_load((ROOT / "nbs/sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    address = published_address()
    for path in sorted(PREPARED.rglob("*")):
        name = path.relative_to(PREPARED)
        if path.suffix == ".ipynb":
            page = page_name(name.as_posix())
            notebook = sphinx_notebook(nbformat.read(path, as_version=4), page, address)
            if page == "index":
                notebook.cells += [markdown_cell(toctree) for toctree in toctrees(contents)]
            target = SOURCE / f"{page}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, target)
        elif path.suffix in PICTURES:
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, SOURCE / name)
    # nbdev prepares nothing, and says nothing, in a checkout below a folder whose name starts with a dot.
    if not (SOURCE / "index.ipynb").is_file():
        raise SystemExit(f"docs: nbdev prepared no notebooks; is there a folder with a leading dot in {ROOT}?")


def build(source: Path, site: Path) -> None:
    """Run Sphinx with warnings as errors, and add plotly's script when a page draws a figure."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-c", "docs", str(source), str(site)]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise SystemExit("docs: Sphinx reported the warnings above; each is an error")
    if any("plotly.min.js" in page.read_text(encoding="utf-8") for page in site.rglob("*.html")):
        script = files("plotly") / "package_data" / "plotly.min.js"
        (site / "_static" / "plotly.min.js").write_bytes(script.read_bytes())


class Page(HTMLParser):
    """The anchors of one page, what it fetches, and where it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what one start tag names, fetches or links to."""
        values = {name: value for name, value in attributes if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        fetches = tag != "link" or FETCHING_LINKS & set(values.get("rel", "").split())
        if tag == "a":
            self.links += [values["href"]] if "href" in values else []
        elif fetches:
            self.fetched += [values[name] for name in ("src", "href", "poster", "data") if name in values]
            self.fetched += [entry.split()[0] for entry in values.get("srcset", "").split(",") if entry.strip()]


def is_remote(address: str) -> bool:
    """Whether a browser would ask another host for this address."""
    return not address.startswith("data:") and bool(urlsplit(address).netloc)


def site_problems(folder: Path) -> list[str]:
    """One line for each thing that a page of the site loads from elsewhere, and each of its links to nothing."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        problems += [f"{name}: loads {address}" for address in page.fetched if is_remote(address)]
        for address in page.fetched + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {parts.fragment}
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                problems.append(f"{name}: nothing at {address}")
    for path in sorted(folder.rglob("*.css")):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", path.read_text(encoding="utf-8"))
        problems += [f"{path.relative_to(folder)}: loads {address}" for address in found]
    return problems


def main() -> int:
    """Build the site; 1 when a page of it is broken."""
    prepare()
    build(SOURCE, HTML)
    problems = site_problems(HTML)
    for problem in problems:
        print(f"docs: {problem}", file=sys.stderr)
    if not problems:
        print(f"docs: {len(list(SOURCE.rglob('*.ipynb')))} pages in {HTML.relative_to(ROOT)}/index.html")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
