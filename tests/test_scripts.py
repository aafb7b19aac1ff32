"""The in-step check finds each way in which notebooks and package come apart, and touches nothing; README's blocks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell

import in_step
import readme
from package import difference

ROOT = Path(__file__).resolve().parent.parent
CELL = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}


def write_notebook(path: Path, module: str) -> None:
    """A clean notebook that exports one function."""
    sources = [f"#| default_exp {module}", "#| export\ndef rank() -> str:\n    return 'AIPDA'"]
    cells = [
        {**CELL, "id": f"{number:08d}", "source": source.splitlines(True)} for number, source in enumerate(sources)
    ]
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")


def nbdev(command: str, folder: Path) -> None:
    subprocess.run([Path(sys.executable).with_name(command)], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small nbdev project in step with itself, which the check takes for the repository."""
    shutil.copy(ROOT / "settings.ini", tmp_path)
    (tmp_path / "nbs").mkdir()
    for number, name in enumerate(["kept", "edited", "forgotten", "soiled"]):
        write_notebook(tmp_path / "nbs" / f"{number:02d}_{name}.ipynb", name)
    (tmp_path / "ocr_sprint").mkdir()
    nbdev("nbdev_clean", tmp_path)
    nbdev("nbdev_export", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setattr(in_step, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_in_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_step.main() == 0
    assert "4 notebooks are clean" in capsys.readouterr().out


def test_out_of_step(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = project / "ocr_sprint"
    edited = package / "edited.py"
    edited.write_text(edited.read_text(encoding="utf-8").replace("AIPDA", "AIPTU"), encoding="utf-8")
    (package / "forgotten.py").unlink()
    (package / "left.py").write_text("rank = 'AIPDA'\n", encoding="utf-8")
    soiled = project / "nbs" / "03_soiled.ipynb"
    soiled.write_text(soiled.read_text(encoding="utf-8").replace('"execution_count": null', '"execution_count": 7'))
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert in_step.main() == 1
    assert capsys.readouterr().err.splitlines() == [
        "in_step: nbs/03_soiled.ipynb: not clean; run nbdev_clean --fname nbs/03_soiled.ipynb",
        "in_step: ocr_sprint/left.py: no notebook exports it; delete it",
        "in_step: ocr_sprint/edited.py: differs from nbs/01_edited.ipynb; run nbdev_export",
        "in_step: ocr_sprint/forgotten.py: missing; run nbdev_export for nbs/02_forgotten.ipynb",
    ]
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_a_file_that_the_wheel_lacks_or_adds_is_named() -> None:
    packed = ["ocr_sprint/__init__.py", "ocr_sprint/old.py", "ocr_sprint-0.1.0.dist-info/METADATA"]
    assert difference(packed, ["ocr_sprint/__init__.py", "ocr_sprint/panel.js"]) == [
        "ocr_sprint/panel.js: not in the wheel; see MANIFEST.in",
        "ocr_sprint/old.py: in the wheel, but not in the repository",
    ]


def test_cells_become_markdown() -> None:
    assert readme.cell_markdown(new_raw_cell("---\ntitle: A\ndescription: B.\n---")) == ["# A", "B."]
    assert readme.cell_markdown(new_markdown_cell("![](images/a.png)")) == ["![](nbs/images/a.png)"]
    shown = [
        new_output("stream", text="1\n2\n"),
        new_output("execute_result", {"text/plain": "frame", "text/markdown": "| a |\n|---|"}),
    ]
    code = ["```python\nf()\n```", "```text\n1\n2\n```", "| a |\n|---|"]
    assert readme.cell_markdown(new_code_cell("f()", outputs=shown)) == code
    assert readme.cell_markdown(new_code_cell("#| echo: false\nf()", outputs=shown)) == code[1:]


def test_a_picture_as_output_is_refused() -> None:
    with pytest.raises(SystemExit, match="save it under nbs/images"):
        readme.output_markdown(new_output("display_data", {"image/png": "AA==", "text/plain": "<Figure>"}))
