"""What students' commands claim: gates that cannot mislead, ranges that hold, suggestions that lose nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_samples import Run, read, write

from ocr_sprint.tools.cli import main
from ocr_sprint.training.calibration import fit_calibration
from ocr_sprint.training.fiction import fictitious_articles
from ocr_sprint.training.learnability import LearningCurve, fit_curve


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of two hundred articles; nobody may change it."""
    folder, articles = tmp_path_factory.mktemp("claims"), list(fictitious_articles(260, seed=1, words=60))
    train = write(folder / "train.jsonl", articles[:200])
    write(folder / "test.jsonl", articles[200:])
    assert main(["train_student", "--train-file", str(train), "--output", str(folder / "model")]) == 0
    return folder


def test_the_gate_never_calls_too_few_permutations_a_finding(tmp_path: Path, run: Run) -> None:
    """However good the labels, so few could not show it; and twenty-six dimensions get as many as they need."""
    words = ["sawah", "sungai", "gunung", "pasar", "kapal", "rumah", "hutan", "jalan", "kebun"]
    clear = [
        {
            "id": str(n),
            "text": f"{words[n % 9]} {words[n % 9]}lah di desa {n * 7919 % 1000} kata{n} lagi{n * 31} makan{n % 97}",
            "analysis": {f"d{place:02d}": float(n % 9) for place in range(26)},
        }
        for n in range(60)
    ]
    labels = write(tmp_path / "labels.jsonl", clear)
    command = ["learnability", "--labeled-file", labels, "--output", tmp_path / "page.md"]
    for given in (0, -3, 518):
        code, said = run(*command, "--permutations", given)
        assert code == 2 and f"{given} permutations cannot show" in said and said.endswith("at least 519 are needed")
    code, said = run(*command, "--strict")
    assert code == 0, said
    assert "26 of 26 dimensions can be learned" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    "flags", [("--texts", -5), ("--texts", 29), ("--seed", -1)], ids=lambda f: "".join(map(str, f))
)
def test_the_gate_refuses_what_makes_no_sense(made: Path, run: Run, flags: tuple[str, int]) -> None:
    code, said = run("learnability", "--labeled-file", made / "train.jsonl", *flags)
    assert code == 2 and "at least 30, and the seed is not negative" in said


def test_constant_labels_are_called_constant(tmp_path: Path, run: Run) -> None:
    lines = list(fictitious_articles(60, seed=5, words=60))
    for line in lines:
        line["uplifting_analysis"] |= {"agency": 5, "justice": 5.5}
    labels, page = write(tmp_path / "labels.jsonl", lines), tmp_path / "page.md"
    code, said = run("learnability", "--labeled-file", labels, "--output", page, "--strict")
    assert code == 3 and "no sign of learning" in said
    rows = [line for line in page.read_text().splitlines() if line.startswith(("| agency", "| justice"))]
    assert len(rows) == 2 and all("all labels are the same" in row and "1,328" not in row for row in rows)
    assert "All labels of agency, justice are the same" in page.read_text()


def test_a_forecast_allows_for_a_curve_that_flattens() -> None:
    """Errors that fell evenly at each doubling, and then by half as much: nothing in the sizes at hand foretells it."""
    spread = np.random.default_rng(0).normal(0, 0.3, 240)
    errors = np.array([1.82, 1.69, 1.55, 1.42])[:, None] + spread + np.random.default_rng(1).normal(0, 0.05, (4, 240))
    sizes = np.array([30.0, 60, 120, 240])
    rows = [np.arange(240), *(np.random.default_rng(seed).integers(0, 240, 240) for seed in range(200))]
    means = np.array([errors[:, row].mean(axis=1) for row in rows])
    told = LearningCurve(sizes, means[0], fit_curve(sizes, means), means[:, -2:]).forecast(480)
    assert told.change < -0.09  # the fitted curve goes on
    assert told.change_low < -0.105 and told.change_high > -0.065
    assert told.low < 1.30 and told.high > 1.38


def test_copies_do_not_narrow_the_gain() -> None:
    generator = np.random.default_rng(0)
    true = generator.normal(5, 2, 60)
    predicted, labels = 5 + 0.8 * (true - 5) + generator.normal(0, 0.4, 60), true + generator.normal(0, 1, 60)
    widths = []
    for copies in (1, 5):
        rows = np.repeat(np.arange(60), copies)
        gain = fit_calibration(predicted[rows, None], labels[rows, None], rows, ["a"])[0].gains[0]
        widths.append(gain.high - gain.low)
    assert widths[1] == pytest.approx(widths[0]) and widths[0] > 0.2


def test_a_better_curve_in_use_is_kept(made: Path, tmp_path: Path, run: Run) -> None:
    """Few labels draw a worse curve than many did: it is told, and nothing that was known is forgotten."""
    model, out = tmp_path / "model", tmp_path / "out.jsonl"
    shutil.copytree(made / "model", model)

    def told(name: str, count: int, noise: float) -> str:
        """What is said of labels that lie two points below what is said before calibration, more or less."""
        source = write(tmp_path / name, list(fictitious_articles(count, seed=len(name), words=40)))
        assert run("predict", "--model", model, "--source", source, "--output", out)[0] == 0
        generator, lines = np.random.default_rng(0), read(out)
        for line in lines:
            labels = {key: min(max(raw - 2 + generator.normal(0, noise), 0), 10) for key, raw in line["raw"].items()}
            line["labels"] = labels
        code, said = run("calibrate_student", "--model", model, "--predictions", write(out, lines))
        assert code == 0, said
        return said

    first = told("many.jsonl", 300, 0.1)
    assert first.count("kept: the curve drawn from these") == 4
    before = (model / "calibration.json").read_bytes()
    again = told("few.jsonl", 32, 0.3)
    assert again.count("kept: the curve in use") == 4 and "as it was; no curve of these labels does better" in again
    assert (model / "calibration.json").read_bytes() == before
    for line in again.splitlines()[:4]:
        errors = [float(number) for number in re.findall(r"\d\.\d\d", line)]
        assert errors[0] == min(errors) and "with the curve in use" in line


def predicted(path: Path, count: int, **also: Any) -> Path:
    """A file of predictions out of fold, some without labels, with ids from 0."""
    lines = [
        {"id": n, "predictions": {"a": n % 10, "b": 5}, "oof": True, "uncertainty": 1 + n % 7, "model": "m"}
        | ({"labels": {"a": 5, "b": 5}} if n % 2 else {})
        | also
        for n in range(count)
    ]
    return write(path, lines)


def test_the_second_round_overwrites_nothing(tmp_path: Path, run: Run) -> None:
    """Its source is what the first round wrote; and without a source nothing of the first is left."""
    predictions = predicted(tmp_path / "predictions.jsonl", 40)
    source = write(tmp_path / "pool.jsonl", [{"id": n, "text": "Sumur."} for n in range(40)])
    words = ["suggest", "--predictions", predictions, "--output-dir", tmp_path / "next", "--count", 20]
    code, said = run(*words, "--source", source)
    assert code == 0, said
    labelled = tmp_path / "next" / "label_next.jsonl"
    assert sorted(line["id"] for line in read(labelled)) == list(range(0, 40, 2))  # 0 is an id too
    before = {path.name: path.read_bytes() for path in (tmp_path / "next").iterdir()}
    code, said = run(*words, "--source", labelled)
    assert code == 2 and "choose another output" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "next").iterdir()} == before
    code, said = run(*words[:-1], 3)
    assert code == 0 and not labelled.exists() and len((tmp_path / "next" / "label_next.txt").read_text().split()) == 3


def test_predictions_in_the_folder_of_the_lists_are_kept(tmp_path: Path, run: Run) -> None:
    predictions = predicted(tmp_path / "label_next.jsonl", 40)
    before = predictions.read_bytes()
    code, said = run("suggest", "--predictions", predictions, "--output-dir", tmp_path)
    assert code == 2 and "choose another output" in said and predictions.read_bytes() == before


def test_a_missing_record_is_told_before_any_list_is_written(tmp_path: Path, run: Run) -> None:
    predictions, source = predicted(tmp_path / "p.jsonl", 40), write(tmp_path / "s.jsonl", [{"id": 1, "text": "x"}])
    code, said = run("suggest", "--predictions", predictions, "--output-dir", tmp_path / "next", "--source", source)
    assert code == 1 and "has no record for" in said and not (tmp_path / "next").exists()


def test_what_cannot_be_suggested_is_explained(tmp_path: Path, run: Run) -> None:
    bare = predicted(tmp_path / "bare.jsonl", 40, labels=None, uncertainty=None)
    code, said = run("suggest", "--predictions", bare, "--output-dir", tmp_path / "next")
    assert code == 0 and "nan" not in said
    assert "None of these texts has a label" in said and "40 texts without labels have no `uncertainty`" in said


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"predictions": {"a": 5}}, "b is not in every prediction"),
        ({"predictions": {"a": 5, "b": 5, "c": 5}}, "c is not in every prediction"),
        ({"labels": {"a": "tujuh", "b": 5}}, "the label of a is 'tujuh' and no number"),
        ({"labels": {"a": {"score": "7"}}}, "the label of a is '7' and no number"),
        ({"labels": [5, 5]}, "labels is no object"),
    ],
    ids=["fewer", "more", "words", "digits", "list"],
)
def test_labels_and_dimensions_of_every_line_count(tmp_path: Path, run: Run, line: dict[str, Any], fault: str) -> None:
    """Text in a label's place would be bought again, and a dimension of later lines alone would vanish."""
    path = predicted(tmp_path / "p.jsonl", 40)
    write(path, [*read(path), read(path)[0] | {"id": "odd"} | line])
    code, said = run("suggest", "--predictions", path, "--output-dir", tmp_path / "next")
    assert code == 1 and fault in said and "p.jsonl, line 41:" in said


@pytest.mark.parametrize("flag", ["nan", "inf", "-1", "1e308"])
def test_odd_widths(tmp_path: Path, run: Run, flag: str) -> None:
    words = ["suggest", "--predictions", predicted(tmp_path / "p.jsonl", 40), "--output-dir", tmp_path / "next"]
    code, said = run(*words, f"--width={flag}", "--count", 10**24)
    assert (code == 0) if flag == "1e308" else (code == 2 and "the width at least 1" in said)


def test_links_that_lead_in_a_circle(made: Path, tmp_path: Path, run: Run) -> None:
    for one, other in (("a.html", "b.html"), ("b.html", "a.html")):
        (tmp_path / one).symlink_to(tmp_path / other)
    predictions = predicted(tmp_path / "p.jsonl", 40)
    code, said = run("suggest", "--predictions", predictions, "--output-dir", tmp_path / "a.html")
    assert code == 2 and "lead in a circle" in said
    code, said = run("learnability", "--labeled-file", made / "train.jsonl", "--output", tmp_path / "a.html")
    assert code == 2 and "lead in a circle" in said


def test_what_the_student_learned_from_is_labelled_also_where_a_file_does_not_say_so(
    made: Path, tmp_path: Path, run: Run
) -> None:
    """The raw texts hold no labels; those of two hundred were paid for, and are not asked for again."""
    articles = [*read(made / "train.jsonl"), *read(made / "test.jsonl")]
    bare = [{key: value for key, value in each.items() if not key.endswith("_analysis")} for each in articles]
    write(tmp_path / "left.jsonl", bare[:130])
    write(tmp_path / "right.jsonl", bare[130:])
    predictions, lists = tmp_path / "predictions.jsonl", tmp_path / "lists"
    raw = tmp_path / "*t.jsonl"
    code, said = run("predict", "--model", made / "model", "--source", raw, "--output", predictions)
    assert code == 0 and "200 that the student was trained on" in said
    code, said = run("suggest", "--predictions", predictions, "--count", 100, "--output-dir", lists)
    assert code == 0, said
    wanted = set((lists / "label_next.txt").read_text().split())
    assert wanted == {each["id"] for each in read(made / "test.jsonl")}
