"""From an empty folder to a ground-truth line, with nothing but commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_sprint.core.errors import DataError
from ocr_sprint.core.files import file_sha256
from ocr_sprint.documents import pipeline
from ocr_sprint.documents.letter import parse_result
from ocr_sprint.review.edits import plan
from ocr_sprint.review.replay import Event
from ocr_sprint.review.store import open_store
from ocr_sprint.tools import demo
from ocr_sprint.tools.cli import main
from ocr_sprint.tools.demo_labels import ReadLetter, labels_step

Call = Callable[..., subprocess.CompletedProcess[str]]
CONSOLE = Path(sysconfig.get_path("scripts")) / "ocr_sprint"
KEYS = [
    "job_id", "filename", "source_kind", "approved", "reviewed_by", "reviewed_at", "created_at", "initial_result",
    "final_result", "corrections", "review_flags", "confidence",
]  # fmt: skip


@pytest.fixture
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Call:
    "Runs a command in an empty folder, by the console command unless the test asks for a module."
    door = getattr(request, "param", "console")

    def run(name: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        doors = {"module": [sys.executable, "-m", f"ocr_sprint.tools.{name}"], "console": [str(CONSOLE), name]}
        surroundings = {key: value for key, value in os.environ.items() if key != "OCR_SPRINT_STORE"} | environment
        line = [*doors[door], *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=surroundings, check=False)

    return run


def synth(call: Call, n: int = 3, seed: int = 77) -> None:
    words = ("--n", str(n), "--seed", str(seed), "--out", "letters", "--level", "digital", "--layout", "block", "ruled")
    done = call("synth", *words)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"wrote {n} letters ({n} .pdf) with truth and manifest.jsonl to letters\n"


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("call", ["module", "console"], indirect=True)
def test_from_nothing_to_ground_truth(call: Call, tmp_path: Path) -> None:
    synth(call)
    read = call("ingest", "letters", "--json")
    assert read.returncode == 0
    assert read.stderr.splitlines()[-1] == "3 done, 0 flagged, 0 known, 0 failed"
    jobs = rows(read.stdout)
    assert [job["path"] for job in jobs] == [f"letters/00{n}.pdf" for n in (1, 2, 3)]
    assert all(list(job) == ["path", "state", "job_id", "error", "review_flags"] for job in jobs)
    assert {(job["state"], job["error"]) for job in jobs} == {("done", None)}

    assert call("export_ground_truth").stdout == "", "nothing is approved yet"
    every = call("export_ground_truth", "--no-approved-only")
    assert every.returncode == 0
    assert {row["job_id"] for row in rows(every.stdout)} == {job["job_id"] for job in jobs}

    store = f"sqlite:///{tmp_path / 'ocr_sprint.db'}"
    with open_store(store, create=False, validate=parse_result) as opened:
        assert demo.review(opened, tmp_path / "letters", by="penguji") == 0
    done = call("export_ground_truth", "--out", "corpus.jsonl", "--print-stats", "--strict")
    assert done.returncode == 0
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stderr.startswith("wrote corpus.jsonl: 3 lines, sha256 ")
    assert file_sha256(tmp_path / "corpus.jsonl") in done.stderr
    corpus = rows((tmp_path / "corpus.jsonl").read_text())
    assert sorted(row["filename"] for row in corpus) == ["001.pdf", "002.pdf", "003.pdf"]
    for row in corpus:
        truth = json.loads((tmp_path / "letters" / row["filename"]).with_suffix(".json").read_text())
        assert list(row) == KEYS
        assert row["initial_result"] == row["final_result"] == truth
        assert (row["approved"], row["reviewed_by"], row["corrections"]) == (True, "penguji", [])


def test_the_demo_labels_texts_and_does_not_ask_twice(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synth(call, n=2)
    call("ingest", "letters")
    with open_store(f"sqlite:///{tmp_path / 'ocr_sprint.db'}", create=False, validate=parse_result) as opened:
        demo.review(opened, tmp_path / "letters", by="penguji")
        read = {job.job_id: job.ocr_text for job in opened.jobs()}
        labelled = demo.label_texts(opened, tmp_path / "texts")
        journal = (tmp_path / "texts/labels/uplifting/journal.jsonl").read_bytes()
        assert demo.label_texts(opened, tmp_path / "texts") == labelled
    assert (tmp_path / "texts/labels/uplifting/journal.jsonl").read_bytes() == journal
    articles = [row["uplifting_analysis"] for row in rows(labelled.read_text())]
    assert len(articles) == 240
    assert {row["tier"] for row in articles} == {"impact", "connection", "not_uplifting"}
    letters = rows((tmp_path / "texts/letters.jsonl").read_text())
    assert {letter["id"]: letter["content"] for letter in letters} == read
    assert len(letters) == 2
    assert not (tmp_path / "texts/labels/letter_quality").exists(), "two letters tell nothing of an oracle"
    calibrated = json.loads((tmp_path / "texts/uplifting_calibration.json").read_text())
    assert calibrated["recommendation"]["oracle"] == "baseline"
    said = capsys.readouterr().err
    assert f"how that was found: {tmp_path / 'texts/uplifting_calibration.html'}" in said
    assert (
        f"articles: made up, and so are the people's scores of every second one ({tmp_path / 'texts/people.jsonl'})"
        in said
    )
    assert "240 labels with the baseline as it is, without a map (" in said
    assert "not labelled: 2 letters are too few to tell whether an oracle will do; it takes 10" in said
    demo.select_texts(labelled, tmp_path / "selection")
    said = capsys.readouterr().err
    for page in ("coverage_report", "training/selection_report", "training/coverage_comparison"):
        assert f": {tmp_path / 'selection' / page}.html" in said
        assert (tmp_path / "selection" / f"{page}.html").is_file()
    selected = json.loads((tmp_path / "selection/training/manifest.json").read_text())
    assert selected["gap"] <= 0.001
    assert sum(split["records"] for split in selected["splits"].values()) == 120


@pytest.mark.parametrize(
    "corrections", [[0] * 12, [number % 4 for number in range(12)]], ids=["flawless", "some faults"]
)
def test_the_demo_labels_no_letters_against_the_advice(
    corrections: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = [ReadLetter(f"l-{n}", "SURAT PERINTAH " + "Nama. " * n, faults) for n, faults in enumerate(corrections)]
    assert len(rows(labels_step(letters, tmp_path).read_text())) == 240
    advice = json.loads((tmp_path / "letter_quality_calibration.json").read_text())["recommendation"]
    assert advice["oracle"] is None
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["uplifting"]
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert f"the calibration's advice: {advice['reason'].replace('**', '')}" in said
    assert (
        f"letters: scored 10, less 2 for each correction of the demo's reviewer ({tmp_path / 'reviewed.jsonl'})" in said
    )
    assert said[-1].startswith("not labelled, as advised: ")


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(call: Call, tmp_path: Path) -> None:
    synth(call, n=1)
    (tmp_path / "letters" / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    (tmp_path / "letters" / "zcopy.pdf").write_bytes((tmp_path / "letters" / "001.pdf").read_bytes())
    read = call("ingest", "letters", "--store", "sqlite:///other.db")
    assert read.returncode == 0
    states = [line.split("\t") for line in read.stdout.splitlines()]
    assert [(state, path) for state, _, path, *_ in states] == [
        ("done", "letters/001.pdf"),
        ("failed", "letters/torn.pdf"),
        ("known", "letters/zcopy.pdf"),
    ]
    assert states[1][3] == "torn.pdf: the PDF cannot be opened: it is damaged, cut short or without pages"
    assert states[0][1] == states[2][1] != states[1][1]
    assert read.stderr.splitlines()[-1] == "1 done, 0 flagged, 1 known, 1 failed"
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "ocr_sprint.db").exists()
    again = call("ingest", "letters", "--strict", OCR_SPRINT_STORE="sqlite:///other.db")
    assert (again.returncode, again.stderr.splitlines()[-1]) == (3, "0 done, 0 flagged, 2 known, 1 failed")
    assert call("ingest", "letters/torn.pdf").returncode == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("ingest", "absent.pdf"), "absent.pdf: no such file or folder"),
        (("ingest",), "the following arguments are required: paths"),
        (("ingest", ".", "--engine", "abbyy"), "invalid choice: 'abbyy'"),
        (("ingest", ".", "--processes", "0"), "processes is 0; give at least 1"),
        (("ingest", ".", "--store", "oracle://x"), "oracle"),
        (("synth", "--n", "0", "--seed", "1", "--out", "x"), "cannot make 0 letters; ask for 1 to 1000000"),
        (("synth", "--n", "1", "--seed", "1", "--out", "x", "--level", "awful"), "invalid choice: 'awful'"),
        (("synth", "--n", "1", "--seed", "1"), "the following arguments are required: --out"),
        (("synth", "--n", "1", "--seed", "1", "--out", "x", "--level", "digital", "--pen"), "cannot be written on"),
        (("export_ground_truth", "--since", "soon"), "--since"),
        (("export_ground_truth",), "ocr_sprint.db"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCR_SPRINT_STORE", raising=False)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"ocr_sprint {words[0]}: ")
    assert complaint in err.splitlines()[-1]
    assert not (tmp_path / "x").exists()


def test_the_same_letters_twice_are_the_same_files(call: Call, tmp_path: Path) -> None:
    synth(call)
    first = {path.name: path.read_bytes() for path in (tmp_path / "letters").iterdir()}
    synth(call)
    assert {path.name: path.read_bytes() for path in (tmp_path / "letters").iterdir()} == first
    assert set(first) == {"manifest.jsonl", *(f"00{n}.{suffix}" for n in (1, 2, 3) for suffix in ("pdf", "json"))}


# What the demo's reviewer does

WORDS = st.sampled_from(["BUDI", "BUD1", "CITRA", "AGUS WIBOWO", None])
ROWS = st.lists(st.fixed_dictionaries({"nama": WORDS, "tugas": st.lists(WORDS.filter(bool), max_size=3)}), max_size=5)


@given(*[st.fixed_dictionaries({"perihal": WORDS, "personel": ROWS})] * 2)
def test_a_reviewers_edits_lead_to_the_truth_in_their_order(truth: Any, found: Any) -> None:
    stamp = Event(1, "set", "", None, None, "penguji", None, "2025-05-30T14:00:00Z")
    assert plan(found, demo.edits_towards(truth, found), stamp)[0] == truth


def test_a_reviewer_puts_right_what_differs(tmp_path: Path) -> None:
    truth = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": "x"}, {"e": "y"}], "f": None}
    found = {"a": {"b": 2, "c": [1]}, "d": [{"e": "x"}, {"e": "z"}], "f": None}
    assert [(edit.op, edit.field_path, edit.value) for edit in demo.edits_towards(truth, found)] == [
        ("set", "a.b", 1),
        ("set", "d[1].e", "y"),
        ("add", "a.c[1]", 2),
    ]
    assert demo.edits_towards(truth, truth) == []
    (tmp_path / "001.json").write_text("{}")
    (tmp_path / "001.pdf").write_bytes(b"")
    with (
        open_store(f"sqlite:///{tmp_path / 'store.db'}") as store,
        pytest.raises(DataError, match=r"001\.pdf: the letter was not read \(no job\)"),
    ):
        demo.review(store, tmp_path, by="penguji")


def test_the_demo_names_each_letter_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_one(*_: object, **__: object) -> Iterator[pipeline.Ingested]:
        yield pipeline.Ingested(Path("letters/001.pdf"), "a", False, None)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "ingest", read_one)
    with pytest.raises(KeyboardInterrupt):
        demo.demo(tmp_path, n=1)
    assert capsys.readouterr().err.splitlines()[-1] == "   1 of 1: 001.pdf"
