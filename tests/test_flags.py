"""Every flag that the documents wing can raise has a sentence, and every sentence a flag that is raised."""

import ast
import re
from pathlib import Path

import pytest

from ocr_sprint.documents.flags import FLAGS, explain, split_flag

PACKAGE = Path(__file__).resolve().parent.parent / "ocr_sprint"
SOURCES = [
    PACKAGE / "documents" / f"{name}.py" for name in ("checks", "identifiers", "pipeline", "header", "personnel")
]


def texts(source: Path) -> set[str]:
    """The literal texts of a module, f-strings up to their first value, docstrings left out."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose)
    return {node.value for node in nodes if isinstance(node.value, str)}


def test_the_sentences_and_the_flags_are_the_same() -> None:
    found = set().union(*map(texts, SOURCES))
    codes = {re.split("[@:]", text)[0] for text in found}
    written = {code for code in FLAGS if code != "replay_drift" and not code.startswith("perbaikan_")}
    assert written <= codes
    raised = {text for text in found if re.fullmatch(r"[a-z]+(_[a-z]+)+[@:].*", text)}
    assert {re.split("[@:]", text)[0] for text in raised} <= set(FLAGS)
    assert {code.removeprefix("perbaikan_") for code in FLAGS if code.startswith("perbaikan_")} <= found


@pytest.mark.parametrize("code", FLAGS)
def test_a_sentence_reads_well_behind_its_place(code: str) -> None:
    assert re.fullmatch(r"[a-z].*[^.]", FLAGS[code])
    assert explain(f"{code}@personel[0].nrp") == f"personel[0].nrp: {FLAGS[code]}"
    assert split_flag(f"{code}:3").page == 3
