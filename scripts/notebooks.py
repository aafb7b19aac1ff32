"""Run notebooks in a kernel and store their outputs, cleaned: notebooks.py [--check] [NOTEBOOK ...].

The documentation shows stored outputs, so run a notebook again when its cells, or what they call, have changed. With
--check nothing is written, and a notebook whose outputs would change is an error; times and random ids always would.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from execnb.nbio import nb2str
from fastcore.xtras import loads
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import clean_nb
from nbdev.doclinks import nbglob

SECONDS_PER_CELL = 900


def executed(path: Path) -> str:
    """Run a notebook in its own folder and return its cleaned text, as nbdev_clean would write it."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", resources=resources).execute()
    plain = loads(nbformat.writes(notebook))
    clean_nb(plain)
    return str(nb2str(plain))


def main() -> int:
    """Run the notebooks one after the other; 1 when a cell fails or, with --check, an output would change."""
    parser = argparse.ArgumentParser(description="Run notebooks in a kernel and store their outputs, cleaned.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="which notebooks; all of them by default")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when an output would change")
    arguments = parser.parse_args()
    failed = 0
    for path in arguments.notebooks or sorted(nbglob(as_path=True)):
        try:
            text = executed(path)
        except CellExecutionError as error:
            failed += 1
            print(f"notebooks: {path}: a cell failed\n{error}", file=sys.stderr)
            continue
        changed = text != path.read_text(encoding="utf-8")
        if changed and arguments.check:
            failed += 1
            print(f"notebooks: {path}: its outputs would change", file=sys.stderr)
        elif changed:
            path.write_text(text, encoding="utf-8")
        print(f"notebooks: {path}: {'changed' if changed else 'as stored'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
