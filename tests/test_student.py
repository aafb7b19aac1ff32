"""The student through its commands: files, what they refuse, and the loop that they close."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocr_sprint.tools.cli import main
from ocr_sprint.training.fiction import fictitious_articles


def write(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def articles() -> list[dict[str, Any]]:
    return list(fictitious_articles(260, seed=1, words=60))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, articles: list[dict[str, Any]]) -> Path:
    """A student of two hundred articles; nobody may change it."""
    folder = tmp_path_factory.mktemp("student")
    train, test = write(folder / "train.jsonl", articles[:200]), write(folder / "test.jsonl", articles[200:])
    words = ["train_student", "--train-file", train, "--test-file", test, "--output", folder / "model"]
    assert main(list(map(str, words))) == 0
    return folder


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit code, and what it said in its last line."""

    def call(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(map(str, words)))
        said = capsys.readouterr().err.strip().splitlines()
        return code, said[-1] if said else ""

    return call


def test_same_files_same_student(made: Path, tmp_path: Path, run: Run) -> None:
    code, _ = run("train_student", "--train-file", made / "train.jsonl", "--output", tmp_path / "again")
    assert code == 0
    for name in ("weights.npz", "calibration.json", "out_of_fold.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (made / "model" / name).read_bytes()


def test_reload_predicts_the_same(made: Path, tmp_path: Path, run: Run) -> None:
    for name in ("one.jsonl", "two.jsonl.gz"):
        run("predict", "--model", made / "model", "--source", made / "test.jsonl", "--output", tmp_path / name)
    import gzip

    assert (tmp_path / "one.jsonl").read_bytes() == gzip.decompress((tmp_path / "two.jsonl.gz").read_bytes())
    told = {line["id"]: line["predictions"] for line in read(made / "model" / "predictions.jsonl")}
    for line in read(tmp_path / "one.jsonl"):
        assert line["predictions"] == pytest.approx(told[line["id"]], abs=1e-3)


def test_own_texts_are_answered_out_of_fold(made: Path, tmp_path: Path, run: Run) -> None:
    renamed = [{**line, "id": f"other_{line['id']}"} for line in read(made / "train.jsonl")]
    source = write(tmp_path / "renamed.jsonl", renamed)
    code, said = run("predict", "--model", made / "model", "--source", source, "--output", tmp_path / "out.jsonl")
    assert code == 0 and "200 that the student was trained on" in said
    told = [line for line in read(made / "model" / "predictions.jsonl") if line["split"] == "train"]
    for line, own in zip(read(tmp_path / "out.jsonl"), told, strict=True):
        assert line["predictions"] == own["predictions"] and line["uncertainty"] == own["uncertainty"]


def test_out_of_fold_is_no_memory(made: Path) -> None:
    """What is written for training texts is as far off as what is written for others, not better."""
    lines = read(made / "model" / "predictions.jsonl")
    errors = {
        split: np.mean([line["error"] for line in lines if line["split"] == split]) for split in ("train", "test")
    }
    assert errors["train"] > 0.85 * errors["test"]


def test_missing_dimensions_are_masked(made: Path, tmp_path: Path, run: Run) -> None:
    """Texts that lack a score teach nothing of it: a far-off value in their place would change the student."""
    gaps = read(made / "train.jsonl")
    for line in gaps[::2]:
        del line["uplifting_analysis"]["agency"]
    filled = [{**line, "uplifting_analysis": {"agency": 0.0} | line["uplifting_analysis"]} for line in gaps]
    means = []
    for name, lines in (("gaps", gaps), ("zeros", filled)):
        train = write(tmp_path / f"{name}.jsonl", lines)
        assert run("train_student", "--train-file", train, "--output", tmp_path / name)[0] == 0
        out = tmp_path / f"{name}_out.jsonl"
        run("predict", "--model", tmp_path / name, "--source", made / "test.jsonl", "--output", out)
        means.append(np.mean([line["predictions"]["agency"] for line in read(out)]))
    true = np.mean([line["uplifting_analysis"]["agency"] for line in read(made / "test.jsonl")])
    assert abs(means[0] - true) < 0.7 < abs(means[1] - true)


def test_copies_never_straddle(tmp_path: Path, articles: list[dict[str, Any]], run: Run) -> None:
    """Labels without sense are not predicted from a copy of the text in another fold."""
    generator = np.random.default_rng(0)
    twins = []
    for number, article in enumerate(articles[:60]):
        scores = {"agency": float(generator.integers(11)), "wonder": float(generator.integers(11))}
        for copy in ("a", "b"):
            twins.append({"id": f"{number}{copy}", "text": article["text"] + copy, "analysis": scores})
    train = write(tmp_path / "twins.jsonl", twins)
    errors = {}
    for flag in ("--copies", "--no-copies"):
        assert run("train_student", "--train-file", train, "--output", tmp_path / flag, flag)[0] == 0
        document = json.loads((tmp_path / flag / "metrics.json").read_text())
        measured = document["measures"]["out of fold"][0]
        errors[flag] = measured["error"] / measured["constant"]
    assert errors["--copies"] > 0.9 and errors["--no-copies"] < 0.7


def test_bad_records_are_quarantined(made: Path, tmp_path: Path, run: Run) -> None:
    bad = ["not JSON", {"text": "x"}, {"id": "e", "text": " "}, {"id": "o", "text": "x", "analysis": {"agency": 99}}]
    good = read(made / "test.jsonl")[:3]
    source = write(tmp_path / "mixed.jsonl", [*bad, *good, good[0]])
    words = ["predict", "--model", made / "model", "--source", source, "--output", tmp_path / "out.jsonl"]
    assert run(*words)[0] == 0
    assert run(*words, "--strict")[0] == 3
    reasons = [line["reason"] for line in read(tmp_path / "out.quarantine.jsonl")]
    assert reasons[:3] == ["not a JSON value", "no id", "no text"] and reasons[-1] == "duplicate id"
    assert {line["id"] for line in read(tmp_path / "out.jsonl")} >= {line["id"] for line in good}


def test_overlaps_are_refused(made: Path, tmp_path: Path, run: Run) -> None:
    train = made / "train.jsonl"
    words = ["train_student", "--train-file", train, "--output", tmp_path / "m", "--test-file"]
    code, said = run(*words, train)
    assert code == 1 and "is in train and in test" in said and not (tmp_path / "m" / "student.json").exists()
    first = read(train)[0]
    near = write(tmp_path / "near.jsonl", [{**first, "id": "near", "text": first["text"].upper() + " lagi"}])
    code, said = run(*words, near)
    assert code == 1 and f"near in test is a copy of {first['id']} in train" in said
    assert run(*words, near, "--no-copies")[0] == 0


@pytest.mark.parametrize(
    ("records", "code", "words"),
    [
        pytest.param([{"id": "a", "text": "x"}], 1, "no scores from 0 to 10 found", id="no scores"),
        pytest.param([{"id": "a", "text": "", "analysis": {"agency": 1}}], 1, "no text", id="empty text"),
        pytest.param([{"id": "a", "text": "x", "analysis": {"agency": 1}}], 1, "needs 20 at least", id="one text"),
        pytest.param([{"id": "a", "text": "x", "analysis": {"agency": True}}], 1, "no scores", id="no number"),
        pytest.param([], 1, "train.jsonl: empty; there is no record", id="empty file"),
    ],
)
def test_training_files_that_are_none(
    records: list[dict[str, Any]], code: int, words: str, tmp_path: Path, run: Run
) -> None:
    train = write(tmp_path / "train.jsonl", records)
    found, said = run("train_student", "--train-file", train, "--output", tmp_path / "m")
    assert (found, words in said, "train.jsonl" in said) == (code, True, True), said


def test_labels_that_are_all_the_same(tmp_path: Path, articles: list[dict[str, Any]], run: Run) -> None:
    same = [{"id": a["id"], "text": a["text"], "analysis": {"agency": 4}} for a in articles[:40]]
    train = write(tmp_path / "same.jsonl", same)
    assert run("train_student", "--train-file", train, "--output", tmp_path / "m")[0] == 0
    for line in read(tmp_path / "m" / "predictions.jsonl"):
        assert line["predictions"]["agency"] == pytest.approx(4, abs=0.05)


def test_folders_that_are_no_student(made: Path, tmp_path: Path, run: Run) -> None:
    words = ["--source", made / "test.jsonl", "--output", tmp_path / "out.jsonl"]
    code, said = run("predict", "--model", tmp_path, *words)
    assert code == 2 and "is no student's folder" in said
    import shutil

    for name in ("weights.npz", "calibration.json", "out_of_fold.jsonl", "student.json"):
        broken = tmp_path / name.replace(".", "_")
        shutil.copytree(made / "model", broken)
        content = bytearray((broken / name).read_bytes())
        content[len(content) // 2] ^= 1
        (broken / name).write_bytes(content)
        if name == "student.json":
            (broken / name).write_text("{")
        code, said = run("predict", "--model", broken, *words)
        assert code == 1 and name in said, said
    document = json.loads((made / "model" / "student.json").read_text())
    for key in ("files", "dimensions", "scale"):
        broken = tmp_path / f"no_{key}"
        shutil.copytree(made / "model", broken)
        (broken / "student.json").write_text(json.dumps({name: document[name] for name in document if name != key}))
        code, said = run("predict", "--model", broken, *words)
        assert code == 1 and "train" in said, said
    assert not (tmp_path / "out.jsonl").exists()
    code, said = run("train_student", "--train-file", made, "--output", tmp_path / "model")
    assert code == 2 and "is a folder; give the JSON lines in it with --train-file" in said


def test_predictions_of_other_texts(made: Path, tmp_path: Path, run: Run) -> None:
    predictions = tmp_path / "predictions.jsonl"
    run("predict", "--model", made / "model", "--source", made / "test.jsonl", "--output", predictions)
    code, said = run(
        "suggest", "--predictions", predictions, "--output-dir", tmp_path / "next", "--source", made / "train.jsonl"
    )
    assert code == 1 and "has no record for" in said
    selection = ["select_training_set", "--labeled-file", made / "train.jsonl", "--output-dir", tmp_path / "t"]
    code, said = run(
        *selection, "--target-size", 50, "--strategy", "active_learning", "--model-predictions", predictions
    )
    assert code != 0 and "predictions.jsonl" in said


def test_the_loop(made: Path, tmp_path: Path, articles: list[dict[str, Any]], run: Run) -> None:
    """Predict a pool, suggest, and select again: each step reads what the one before wrote."""
    hidden = [{key: a[key] for key in ("id", "title", "text")} for a in fictitious_articles(80, seed=9, words=60)]
    labelled = write(tmp_path / "labelled.jsonl", articles)
    pool = write(tmp_path / "pool.jsonl", [*articles, *hidden])
    assert (
        run("predict", "--model", made / "model", "--source", pool, "--output", tmp_path / "predictions.jsonl")[0] == 0
    )
    predictions, after = tmp_path / "predictions.jsonl", tmp_path / "next"
    words = ["--predictions", predictions, "--output-dir", after, "--source", pool, "--count", 20]
    assert run("suggest", *words)[0] == 0
    assert [line["id"] for line in read(after / "label_next.jsonl")]
    assert {line["id"] for line in read(after / "label_next.jsonl")} <= {line["id"] for line in hidden}
    suspects = {line["id"] for line in read(after / "review_suspects.jsonl")}
    assert len(suspects) == 26
    words = ["--labeled-file", labelled, "--output-dir", tmp_path / "set", "--target-size", 100]
    words += ["--strategy", "active_learning", "--model-predictions", predictions]
    words += ["--exclude", after / "review_suspects.jsonl", "--no-sidecar"]
    code, said = run("select_training_set", *words)
    assert code == 0, said
    chosen = {line["id"] for name in ("train", "val", "test") for line in read(tmp_path / "set" / f"{name}.jsonl")}
    assert len(chosen) == 100 and not chosen & suspects
    words = ["--train-file", tmp_path / "set" / "train.jsonl", "--test-file", tmp_path / "set" / "test.jsonl"]
    assert run("train_student", *words, "--output", tmp_path / "second")[0] == 0


def test_calibration_keeps_to_its_student(made: Path, tmp_path: Path, run: Run) -> None:
    import shutil

    model, predictions = tmp_path / "model", tmp_path / "predictions.jsonl"
    shutil.copytree(made / "model", model)
    run("predict", "--model", model, "--source", made / "test.jsonl", "--output", predictions)
    words = ["calibrate_student", "--model", model, "--predictions", predictions]
    seen = write(tmp_path / "seen.jsonl", [{**line, "oof": False} for line in read(predictions)])
    code, said = run(*words[:-1], seen)
    assert code == 1 and "60 predictions are of texts that it was trained on" in said
    assert run(*words)[0] == 0
    code, said = run(*words)  # the student has changed with its curves
    assert code == 2 and "was not written by the student" in said
    assert run("predict", "--model", model, "--source", made / "test.jsonl", "--output", predictions)[0] == 0


def test_texts_that_curves_were_drawn_from_are_not_called_unseen(made: Path, tmp_path: Path, run: Run) -> None:
    """Their scores went through curves that had their labels; the student's own texts are answered out of fold."""
    import shutil

    model, out, told = tmp_path / "model", tmp_path / "out.jsonl", tmp_path / "told.jsonl"
    shutil.copytree(made / "model", model)
    later = list(fictitious_articles(60, seed=4, words=60))
    for article in later:  # people who give two points less: every curve gains
        article["uplifting_analysis"] = {name: max(v - 2, 0) for name, v in article["uplifting_analysis"].items()}
    bare = [{key: a[key] for key in ("id", "title", "text")} for a in fictitious_articles(10, seed=6, words=60)]
    bare = [{**article, "id": f"bare_{article['id']}"} for article in bare]
    source = write(tmp_path / "later.jsonl", [*later, *bare])
    predict = ["predict", "--model", model, "--source"]
    calibrate = ["calibrate_student", "--model", model, "--predictions"]
    assert run(*predict, source, "--output", out)[0] == 0
    assert all(line["oof"] for line in read(out))
    code, said = run(*calibrate, write(tmp_path / "old.jsonl", [{**x, "text_digest": None} for x in read(out)]))
    assert code == 1 and "has lines without a text_digest; run predict again" in said
    code, said = run(*calibrate, out)
    assert code == 0 and "it knows 60 of these" in said
    renamed = [{**line, "id": f"other_{line['id']}"} for line in [*later, *bare]]
    source = write(tmp_path / "all.jsonl", [*read(made / "train.jsonl"), *renamed])
    code, said = run(*predict, source, "--output", told)
    assert code == 0 and "60 are texts that its curves were drawn from (`oof`: false)" in said
    assert [line["oof"] for line in read(told)] == [True] * 200 + [False] * 60 + [True] * 10
    code, said = run(*calibrate, told)  # their raw scores are as they were: with more texts, curves can be drawn again
    assert code == 0 and "it knows 260 of these" in said


def test_where_no_curve_was_kept_every_text_is_still_unseen(made: Path, tmp_path: Path, run: Run) -> None:
    import shutil

    model, out, told = tmp_path / "model", tmp_path / "out.jsonl", tmp_path / "told.jsonl"
    shutil.copytree(made / "model", model)
    predict = ["predict", "--model", model, "--source", made / "test.jsonl", "--output"]
    run(*predict, out)
    exact = [{**line, "labels": line["raw"]} for line in read(out)]  # nothing to gain
    code, said = run("calibrate_student", "--model", model, "--predictions", write(out, exact))
    assert code == 0 and said.endswith("predict again")
    code, said = run(*predict, told)
    assert code == 0 and said.endswith("0 that the student was trained on")
    assert all(line["oof"] for line in read(told))


def test_gate(tmp_path: Path, run: Run) -> None:
    labels = write(tmp_path / "labels.jsonl", list(fictitious_articles(160, seed=5, words=80)))
    page = tmp_path / "page.html"
    words = ["learnability", "--labeled-file", labels, "--permutations", 99, "--output", page]
    code, said = run(*words, "--strict")
    assert code == 3 and said.endswith("no sign of learning in wonder") and page.stat().st_size > 10_000
    assert run(*words, "--dimensions", "agency,progress", "--strict")[0] == 0
    odd = write(tmp_path / "odd.jsonl", list(fictitious_articles(251, seed=5, words=20)))
    assert run("learnability", "--labeled-file", odd, "--permutations", 79, "--output", page)[0] == 0
    few = write(tmp_path / "few.jsonl", list(fictitious_articles(20, seed=3)))
    code, said = run("learnability", "--labeled-file", few)
    assert code == 1 and "at least 30 are needed" in said


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exact", [100, 2500], ids=["in folds", "exactly"])
@pytest.mark.parametrize("constant", [5.5, 0.0, 7.1])
def test_a_constant_dimension_is_predicted_as_it_is(exact: int, constant: float) -> None:
    """Also when all but one label are the same, so that a fold knows no other."""
    from ocr_sprint.ground_truth.scores import ScoreScale
    from ocr_sprint.training.student import fit_student, predict_texts
    from ocr_sprint.training.texts import Texts

    lines = list(fictitious_articles(160, seed=3, words=30))
    one = np.full(160, constant)
    one[17] = 3.0
    agency = [line["uplifting_analysis"]["agency"] for line in lines]
    scores = np.column_stack([agency, np.full(160, constant), one])
    ids, texts = (tuple(line[key] for line in lines) for key in ("id", "text"))
    train = Texts(ids, texts, scores, ("agency", "constant", "one"), ScoreScale())
    student, own = fit_student(train, np.arange(160), exact=exact)
    told = predict_texts(student, [*texts[:5], "Something else altogether.", "?!"]).scores
    assert np.allclose(told[:, 1], constant, atol=1e-6) and np.allclose(own.scores[:, 1], constant, atol=1e-6)
    assert np.isfinite(told).all() and np.isfinite(own.scores).all()
    assert np.allclose(told[:, 2], constant, atol=0.5)


def test_texts_without_a_word(made: Path, tmp_path: Path, run: Run) -> None:
    """A batch, or all that a student is trained on: the mean of each dimension is said of them."""
    bare = [{**line, "title": "", "text": "?! " * (1 + row % 7)} for row, line in enumerate(read(made / "train.jsonl"))]
    source, out = write(tmp_path / "bare.jsonl", bare), tmp_path / "out.jsonl"
    assert run("predict", "--model", made / "model", "--source", source, "--output", out)[0] == 0
    assert len({line["predictions"]["agency"] for line in read(out)}) == 1
    code, said = run("train_student", "--train-file", source, "--output", tmp_path / "model")
    assert code == 0, said
    for words in (source, made / "test.jsonl"):
        assert run("predict", "--model", tmp_path / "model", "--source", words, "--output", out)[0] == 0
