"""A student outlives whatever happens to the run that would replace it, and nobody's file is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_samples import Run, read, write

from ocr_sprint.core.folders import only_writer
from ocr_sprint.tools.cli import main
from ocr_sprint.training.fiction import fictitious_articles


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of a hundred short articles; nobody may change it."""
    folder, articles = tmp_path_factory.mktemp("student"), list(fictitious_articles(160, seed=1, words=30))
    train, _ = write(folder / "train.jsonl", articles[:100]), write(folder / "test.jsonl", articles[100:])
    assert main(["train_student", "--train-file", str(train), "--output", str(folder / "model")]) == 0
    return folder


KILLED = """
import os, pathlib, signal, sys
count, replace = int(sys.argv.pop(1)), pathlib.Path.replace
def dying(self, target):
    global count
    if pathlib.Path(target).parent.name == "model":
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
pathlib.Path.replace = dying
from ocr_sprint.tools.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("tool", ["train_student", "calibrate_student"])
def test_a_student_outlives_a_kill_at_any_file(tool: str, made: Path, tmp_path: Path, run: Run) -> None:
    """Whichever file was being put in place: what was begun is finished by whoever opens the folder."""
    told, out = tmp_path / "told.jsonl", tmp_path / "out.jsonl"
    train = write(tmp_path / "train.jsonl", read(made / "train.jsonl")[:60])
    run("predict", "--model", made / "model", "--source", made / "test.jsonl", "--output", told)
    write(told, [{**line, "labels": {"agency": 0}} for line in read(told)])
    words = {
        "train_student": ["--train-file", train, "--output"],
        "calibrate_student": ["--predictions", told, "--model"],
    }
    digests = set()
    for count in (0, 7) if tool == "train_student" else (0, 1):
        model = tmp_path / str(count) / "model"
        shutil.copytree(made / "model", model)
        command = [sys.executable, "-c", KILLED, count, tool, *words[tool], model]
        assert subprocess.run(list(map(str, command)), capture_output=True).returncode == -9
        assert not (model / "student.json").exists()
        code, said = run("predict", "--model", model, "--source", made / "test.jsonl", "--output", out)
        assert code == 0, said
        assert not list(model.glob(".*"))
        digests |= {line["model"] for line in read(out)}
        if tool == "train_student":
            assert digests == {line["model"] for line in read(model / "predictions.jsonl")}
    assert len(digests) == 1 and digests.isdisjoint(
        {line["model"] for line in read(made / "model" / "predictions.jsonl")}
    )


def test_a_training_that_fails_leaves_the_earlier_student(made: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(made / "model", tmp_path / "model")
    before = content(tmp_path / "model")
    wrong = write(tmp_path / "few.jsonl", read(made / "train.jsonl")[:10])
    code, _ = run("train_student", "--train-file", wrong, "--output", tmp_path / "model")
    assert code == 1 and content(tmp_path / "model") == before


def test_one_training_at_a_time(made: Path, tmp_path: Path, run: Run) -> None:
    with only_writer(tmp_path / "model"):
        code, said = run("train_student", "--train-file", made / "train.jsonl", "--output", tmp_path / "model")
    assert code == 2 and "another run is writing there" in said


@pytest.mark.parametrize("name", ["README.md", "report.html", "metrics.json", "student.json"])
def test_what_no_student_wrote_is_not_replaced(name: str, made: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / name).write_text('{"name": "mine"}')
    code, said = run("train_student", "--train-file", made / "train.jsonl", "--output", tmp_path)
    assert code == 2 and f"{name}: no student wrote this" in said
    assert content(tmp_path) == {name: b'{"name": "mine"}'}


@pytest.mark.parametrize("name", ["predictions.jsonl", "quarantine.jsonl", "out_of_fold.jsonl"])
def test_training_does_not_replace_its_source(name: str, made: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(made / "model", tmp_path / "model")
    source, link = tmp_path / "model" / name, tmp_path / "link.jsonl"
    shutil.copyfile(made / "train.jsonl", source)
    os.link(source, link)
    for named in (source, link):
        code, said = run("train_student", "--train-file", named, "--output", tmp_path / "model")
        assert code == 2 and f"{named}: is read, and would be replaced" in said
    assert source.read_bytes() == (made / "train.jsonl").read_bytes()


def test_predictions_replace_no_source_and_no_model(made: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(made / "model", tmp_path / "model")
    source = tmp_path / "y.quarantine.jsonl"
    shutil.copyfile(made / "test.jsonl", source)
    predict = ["predict", "--model", tmp_path / "model", "--source", source, "--output"]
    for out in (tmp_path / "y.jsonl", source, tmp_path / "model" / "out_of_fold.jsonl"):
        code, said = run(*predict, out)
        assert code == 2 and "is read, and would be replaced" in said
    assert source.read_bytes() == (made / "test.jsonl").read_bytes()
    assert content(tmp_path / "model") == content(made / "model")
    for name in ("x.quarantine", "v1.a", "v1.b"):
        assert run(*predict, tmp_path / f"{name}.jsonl")[0] == 0
        assert len(read(tmp_path / f"{name}.jsonl")) == 60 and read(tmp_path / f"{name}.quarantine.jsonl") == []


def test_a_file_that_is_named_twice(made: Path, tmp_path: Path, run: Run) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(made / "train.jsonl")
    code, said = run("train_student", "--train-file", made / "train.jsonl", link, "--output", tmp_path / "model")
    assert code == 2 and "link.jsonl: is named twice" in said
    twice = [made / "test.jsonl", made / "test.jsonl"]
    code, said = run("predict", "--model", made / "model", "--source", *twice, "--output", tmp_path / "out.jsonl")
    assert code == 2 and "test.jsonl: is named twice" in said and not (tmp_path / "out.jsonl").exists()


def test_a_student_reads_the_field_that_it_learned_from(made: Path, tmp_path: Path, run: Run) -> None:
    """Another field of a text that it learned is no unseen text, and is said to be another."""
    lines = [
        {**line, "lead": line["text"], "text": f"Elsewhere {row}."}
        for row, line in enumerate(read(made / "train.jsonl"))
    ]
    source, out = write(tmp_path / "leads.jsonl", lines), tmp_path / "out.jsonl"
    words = ["train_student", "--train-file", source, "--output", tmp_path / "model", "--text", "lead"]
    assert run(*words)[0] == 0
    predict = ["predict", "--model", tmp_path / "model", "--source", source, "--output", out]
    code, said = run(*predict)
    assert code == 0 and "100 that the student was trained on" in said and "careful" not in said
    assert all(line["oof"] for line in read(out))
    code, said = run(*predict, "--text", "text")
    assert code == 0 and "careful: the student learned from lead, and reads text now" in said
    assert "100 have the id of a text that the student was trained on, and another text (`oof`: false)" in said
    assert not any(line["oof"] for line in read(out))


def test_the_order_of_lines_does_not_matter(made: Path, tmp_path: Path, run: Run) -> None:
    """Copies and folds are found by what the texts are, so that a shuffled file gives the same student."""
    lines = read(made / "train.jsonl")
    lines += [{**line, "id": f"copy_{line['id']}", "text": f"{line['text']} Baru."} for line in lines[::9]]
    backwards = lines[1::2] + lines[::2][::-1]
    for name, order in (("one", lines), ("other", backwards)):
        train = write(tmp_path / f"{name}.jsonl", order)
        assert run("train_student", "--train-file", train, "--output", tmp_path / name)[0] == 0
    for name in ("weights.npz", "calibration.json", "out_of_fold.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    one, other = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "other"))
    figures = (found["measures"]["out of fold"] for found in (one, other))
    for mine, theirs in zip(*figures, strict=True):
        assert mine == {**theirs, **{key: pytest.approx(value) for key, value in theirs.items() if key != "dimension"}}
