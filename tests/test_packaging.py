"""What makes the repository one whole: settings, extras and frozen versions, notebooks and modules, light imports."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import distribution, distributions
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))
HEAVY = {
    "cv2",
    "dask",
    "google.genai",
    "nbdev",
    "onnxruntime",
    "paddleocr",
    "pandas",
    "plotly",
    "pypdfium2",
    "sqlalchemy",
}


def settings() -> dict[str, str]:
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, each with its source as one string."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in document["cells"] if cell["cell_type"] == "code"]


def pinned(name: str = "constraints.txt") -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def test_the_extras_are_those_of_the_design() -> None:
    names = {name.removesuffix("_requirements") for name in settings() if name.endswith("_requirements")}
    assert names == {"ocr", "llm", "lab", "service", "parquet", "postgres", "cluster", "train", "dev"}


def test_the_installed_package_is_what_settings_say() -> None:
    installed, written = distribution("ocr_sprint"), settings()
    assert installed.version == written["version"]
    assert installed.metadata["Requires-Python"] == f">={written['min_python']}"
    commands = {f"{entry.name}={entry.value}" for entry in installed.entry_points if entry.group == "console_scripts"}
    assert commands == set(written["console_scripts"].split())
    required = [Requirement(line) for line in installed.requires or []]
    # The condition of an extra stands in parentheses when the requirement has one of its own.
    in_all = {line.name for line in required if re.search(r'extra == "all"', str(line.marker))}
    extras = {
        name.removesuffix("_requirements"): words for name, words in written.items() if name.endswith("_requirements")
    }
    wanted = chain.from_iterable(words.split() for name, words in extras.items() if name not in {"train", "dev"})
    assert in_all == {Requirement(word).name for word in wanted}


def test_every_requirement_is_frozen_at_a_version_it_allows() -> None:
    versions = pinned()
    for name, words in settings().items():
        if (name == "requirements" or name.endswith("_requirements")) and name != "train_requirements":
            for requirement in map(Requirement, words.split()):
                version = versions.get(canonicalize_name(requirement.name))
                assert version is not None, f"{requirement.name} of {name} is not in constraints.txt; run make freeze"
                assert requirement.specifier.contains(version), f"constraints.txt has {requirement.name} {version}"


def test_every_frozen_version_runs_on_the_oldest_python() -> None:
    """Debian 12 has 3.11.2, and some packages begin with a later patch release."""
    oldest = settings()["min_python"] + ".0"
    frozen = [found for found in distributions() if canonicalize_name(found.name) in pinned()]
    needs = {found.name: found.metadata.get("Requires-Python", "") for found in frozen}
    assert [name for name, versions in needs.items() if not SpecifierSet(versions).contains(oldest)] == []


def test_what_only_training_needs_is_frozen_apart() -> None:
    training = pinned("constraints-train.txt")
    assert not set(training) & set(pinned())
    for requirement in map(Requirement, settings()["train_requirements"].split()):
        version = {**pinned(), **training}[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"constraints-train.txt has {requirement.name} {version}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_made_as_nbdev_needs_it(notebook: Path) -> None:
    whole = json.loads(notebook.read_text(encoding="utf-8"))
    assert "widgets" not in whole["metadata"], (
        "a widget's state holds the program of its panel, and says nothing to a reader"
    )
    title = "".join(whole["cells"][0]["source"])
    assert re.fullmatch(r"# .+\n\n> .+", title), "the first cell is '# Title', an empty line, '> one line', and no more"
    exports = [re.search(r"^#\| default_exp (\S+)$", cell["source"], re.MULTILINE) for cell in cells(notebook)]
    for name in (found[1] for found in exports if found):
        assert (ROOT / "ocr_sprint" / (name.replace(".", "/") + ".py")).is_file(), "run nbdev_export"
        number_and_name = notebook.relative_to(ROOT / "nbs").with_suffix("").as_posix()
        assert re.sub(r"(^|/)\d+[a-z]*_", r"\1", number_and_name) == name.replace(".", "/"), "name it like its module"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_imports_stand_in_cells_of_their_own(notebook: Path) -> None:
    """nbdev runs every cell that imports something when it prints documentation, and what else the cell does."""
    for cell in cells(notebook):
        code, directives = cell["source"], re.findall(r"^#\|\s*(\w+)", cell["source"], re.MULTILINE)
        if {"export", "exports", "exporti", "eval"} & set(directives) or re.search(r"^\s*[%!]", code, re.MULTILINE):
            continue
        nodes = list(ast.walk(ast.parse(code)))
        imports = any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)
        works = any(isinstance(node, ast.Expr | ast.Assign) for node in nodes)
        assert not (imports and works), f"part the imports from the rest of this cell:\n{code}"


def test_importing_the_package_and_its_command_stays_light() -> None:
    code = "import sys, ocr_sprint, ocr_sprint.tools.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "ocr_sprint.tools.cli" in loaded
    assert not HEAVY & set(loaded)


def test_opencv_is_the_build_that_needs_no_display() -> None:
    spec = find_spec("cv2")
    assert spec is not None
    assert spec.origin is not None
    libraries = list(Path(spec.origin).parent.glob("cv2*.so"))
    assert libraries
    # The desktop build links Qt, and Qt links the libGL that a server or container lacks.
    assert not any(b"libQt5" in library.read_bytes() for library in libraries), "run make install"


def test_no_tracked_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    hosts = r"pythonhosted\.org|pypi\.org|npmjs\.(org|com)|deb\.debian\.org"
    folders = r"(^|[^A-Za-z0-9_.~-])/(root|work|home|Users|tmp)/[A-Za-z]"
    # This file has to name what it looks for.
    command = ["git", "grep", "-nIE", f"{hosts}|{folders}", "--", ".", ":!tests/test_packaging.py"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")


def test_the_browser_tests_fail_without_a_browser_and_the_gate_installs_one(tmp_path: Path) -> None:
    """A gate that went on without a browser would say green about panels that nobody opened."""
    command = [sys.executable, "-m", "pytest", "tests/browser", "-x", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PATH": str(tmp_path), "BROWSER_PATH": ""}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "the browser tests need Chromium: apt-get install chromium" in run.stderr
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^make test-browser$", gate, re.MULTILINE)
    assert "programs+=(chromium)" in gate
