"""The two commands from labels to files: every flag of the requirements, bytes, manifests, and what a mistake says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from ocr_sprint.core.cluster import local_cluster
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.files import atomic_writer
from ocr_sprint.core.folders import only_writer
from ocr_sprint.ground_truth import training_files
from ocr_sprint.ground_truth.corpus import read_corpus
from ocr_sprint.ground_truth.coverage import Coverage
from ocr_sprint.ground_truth.pool import read_ids
from ocr_sprint.ground_truth.strategies import Wish
from ocr_sprint.ground_truth.training_files import write_training_set
from ocr_sprint.ground_truth.training_set import Division
from ocr_sprint.ground_truth.training_task import Aside, Task, build, prepare
from ocr_sprint.tools import select_training_set as tool
from ocr_sprint.tools.analyze_coverage import main as analyze_coverage
from ocr_sprint.tools.select_training_set import main as select_training_set

DIMENSIONS = ("agency", "progress", "connection", "wonder")
Run = Callable[..., dict[str, Any]]


def articles(count: int, seed: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    scores = np.clip(np.round(generator.normal(3, 2, (count, 1)) + generator.normal(0, 1.5, (count, 4)), 0), 0, 10)
    made = []
    for index, row in enumerate(scores.tolist()):
        mean = sum(row) / 4
        tier = "impact" if mean > 5 else "connection" if mean > 3 else "not_uplifting"
        words = " ".join(f"kata{number}" for number in generator.integers(0, 10**6, 30))
        label = {**dict(zip(DIMENSIONS, row, strict=True)), "tier": tier, "reasoning": "karena ✓"}
        made.append({"id": f"a{index}", "source": f"s{index % 7}", "text": words, "uplifting_analysis": label})
    return made


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    path = tmp_path / "labeled_articles.jsonl"
    with atomic_writer(path) as out:
        for number, record in enumerate(articles(900)):
            out.write(json.dumps(record, ensure_ascii=bool(number % 2)).encode() + b"\n")
    return path


@pytest.fixture
def run(labeled: Path, tmp_path: Path) -> Run:
    def call(*flags: str, out: str = "training", code: int = 0) -> dict[str, Any]:
        folder = tmp_path / out
        assert select_training_set(["--labeled-file", str(labeled), "--output-dir", str(folder), *flags]) == code
        found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        return found

    return call


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_the_command_of_the_requirements(run: Run, labeled: Path, tmp_path: Path) -> None:
    flags = "--target-size 300 --strategy maximize_coverage --train-ratio 0.8 --val-ratio 0.1 --test-ratio 0.1"
    manifest = run(*flags.split(), "--dimensions", ",".join(DIMENSIONS))
    folder = tmp_path / "training"
    names = {path.name for path in folder.iterdir()}
    assert {"train.jsonl", "val.jsonl", "test.jsonl", "selection_report.md", "coverage_comparison.md"} <= names
    source = lines(labeled)
    chosen = [lines(folder / f"{name}.jsonl") for name in ("train", "val", "test")]
    assert [len(part) for part in chosen] == [240, 30, 30]
    every = [line for part in chosen for line in part]
    assert len(set(every)) == 300
    assert set(every) <= set(source)
    assert manifest["gap"] <= 0.005
    assert manifest["score"] <= manifest["bound"]
    assert manifest["dimensions"] == list(DIMENSIONS)


@pytest.mark.parametrize("strategy", ["iqr_optimization", "balanced_tiers", "extreme_focus", "raking", "random"])
def test_every_strategy_writes_a_set(run: Run, strategy: str) -> None:
    assert run("--target-size", "100", "--strategy", strategy)["wish"]["strategy"] == strategy


def test_weights_stand_in_the_manifest_and_the_report_and_nowhere_without_them(run: Run, tmp_path: Path) -> None:
    plain = run("--target-size", "400", out="plain")
    weighed = run("--target-size", "400", "--weights", "agency=20, tier=0.5", out="weighed")
    assert "weights" not in plain["wish"]
    assert weighed["wish"].pop("weights") == {"agency": 20, "tier": 0.5}
    assert weighed["wish"] == plain["wish"]
    assert weighed["gap"] <= 0.001
    assert "by weight (agency=20,tier=0.5)" in (tmp_path / "weighed" / "selection_report.md").read_text()
    assert "by weight" not in (tmp_path / "plain" / "selection_report.md").read_text()


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("joy=2", "there is no 'joy' to give a weight; there are agency, progress, connection, wonder, tier"),
        ("agency=2,agency=2", "the weight of 'agency' is given twice; give it once"),
        ("agency", "'agency' is no weight; give a name and a positive number, such as agency=2"),
        ("agency=0", "the weight of agency is 0; give a number from 0.01 to 100"),
        ("agency=nan", "the weight of agency is nan; give a number from 0.01 to 100"),
        ("agency=1e9", "the weight of agency is 1e+09; give a number from 0.01 to 100"),
    ],
)
def test_what_is_no_weight_is_one_line(
    labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: str, told: str
) -> None:
    flags = ["--labeled-file", str(labeled), "--output-dir", str(tmp_path / "none"), "--target-size", "100"]
    assert select_training_set([*flags, "--weights", weights]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"ocr_sprint select_training_set: {told}"
    assert not (tmp_path / "none").exists()


def test_the_same_call_writes_the_same_bytes(run: Run, tmp_path: Path) -> None:
    run("--target-size", "200", out="one")
    run("--target-size", "200", out="two")
    for name in ("train.jsonl", "val.jsonl", "test.jsonl", "weights.jsonl", "selection_report.md", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_order_and_number_of_files_changes_no_id(run: Run, labeled: Path, tmp_path: Path) -> None:
    first = run("--target-size", "200")
    whole = lines(labeled)
    parts = [tmp_path / f"part{number}.jsonl{suffix}" for number, suffix in enumerate(("", ".gz", ".zst"))]
    for number, part in enumerate(parts):
        with atomic_writer(part) as out:
            out.writelines(whole[::-1][number::3])
    folder = tmp_path / "parts"
    flags = ["--labeled-file", *map(str, parts), "--output-dir", str(folder), "--target-size", "200"]
    assert select_training_set([*flags, "--processes", "2"]) == 0
    again = json.loads((folder / "manifest.json").read_text())
    assert again["digest"] == first["digest"]
    for name, split in first["splits"].items():
        assert again["splits"][name]["ids_sha256"] == split["ids_sha256"]
        assert set(lines(folder / f"{name}.jsonl")) == set(lines(tmp_path / "training" / f"{name}.jsonl"))


def test_a_dask_scheduler_reads_the_files(run: Run, labeled: Path) -> None:
    first = run("--target-size", "200")
    with local_cluster(processes=1) as client:
        assert run("--target-size", "200", "--no-sidecar", "--scheduler", client.scheduler.address) == first
        flags = ["--labeled-file", str(labeled), "--no-sidecar", "--scheduler", client.scheduler.address]
        assert analyze_coverage(flags) == 0


def test_a_frozen_test_set_is_never_trained_on(run: Run, tmp_path: Path) -> None:
    run("--target-size", "200", out="first")
    frozen = tmp_path / "first" / "test.jsonl"
    run("--target-size", "300", "--strategy", "extreme_focus", "--frozen-test", str(frozen), out="second")
    assert lines(tmp_path / "second" / "test.jsonl") == lines(frozen)
    trained = read_ids(tmp_path / "second" / "train.jsonl") | read_ids(tmp_path / "second" / "val.jsonl")
    assert not trained & read_ids(frozen)
    run("--target-size", "200", "--exclude", str(tmp_path / "first" / "train.jsonl"), out="third")
    assert not read_ids(tmp_path / "third" / "train.jsonl") & read_ids(tmp_path / "first" / "train.jsonl")


def test_copies_stay_in_one_split(labeled: Path, tmp_path: Path) -> None:
    with labeled.open("ab") as out:
        for number, line in enumerate(lines(labeled)[:200]):
            record = json.loads(line)
            out.write(json.dumps({**record, "id": f"copy{number}", "text": record["text"].upper()}).encode() + b"\n")
    folder = tmp_path / "training"
    assert (
        select_training_set(["--labeled-file", str(labeled), "--output-dir", str(folder), "--target-size", "800"]) == 0
    )
    held = [
        {found.replace("copy", "a") for found in read_ids(folder / f"{name}.jsonl")}
        for name in ("train", "val", "test")
    ]
    assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]


@pytest.mark.parametrize(("shown", "flags"), [(True, []), (False, ["--no-copies"])], ids=["copies", "no copies"])
def test_a_terminal_shows_how_many_texts_are_compared(
    run: Run, shown: bool, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--target-size", "50")
    assert "comparing texts" not in capsys.readouterr().err, "a log is no terminal"
    monkeypatch.setattr(tool, "tqdm", lambda **given: tqdm(**{**given, "disable": False, "mininterval": 0}))
    run("--target-size", "50", *flags)
    assert ("comparing texts:  50%" in capsys.readouterr().err) is shown


def test_groups_by_column_stay_in_one_split(run: Run, tmp_path: Path) -> None:
    flags = "--test covered --group-by source --train-ratio 0.6 --val-ratio 0.2 --test-ratio 0.2"
    run("--target-size", "840", *flags.split())
    held = [
        {json.loads(line)["source"] for line in lines(tmp_path / "training" / f"{name}.jsonl")}
        for name in ("train", "val", "test")
    ]
    assert sum(map(len, held)) == len(set.union(*held)) == 7


def test_difficulty_and_active_learning_read_predictions(run: Run, labeled: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions.jsonl"
    off = {}
    with atomic_writer(predictions) as out:
        for index, line in enumerate(lines(labeled)):
            record = json.loads(line)
            off[record["id"]] = index % 10 / 2
            guess = {name: record["uplifting_analysis"][name] + off[record["id"]] for name in DIMENSIONS}
            out.write(json.dumps({"id": record["id"], "prediction": guess}).encode() + b"\n")
    flags = ("--model-predictions", str(predictions), "--target-size", "100")
    active = run("--strategy", "active_learning", *flags, out="active")
    assert active["mean_error"] > 3.0
    run("--filter-by-difficulty", "hard", *flags, out="hard")
    run("--filter-by-difficulty", "easy", *flags, out="easy")
    for out_name, hardest in (("hard", 3.0), ("easy", -1.5)):
        for found in read_ids(tmp_path / out_name / "train.jsonl"):
            assert off[found] >= hardest if hardest > 0 else off[found] <= -hardest
    tiers = run("--filter-by-difficulty", "hard", "--target-size", "100", out="tiers")
    assert any("by the edges of the tiers" in note for note in tiers["notes"])


def test_both_kinds_of_test_set(run: Run, tmp_path: Path) -> None:
    manifest = run("--target-size", "300", "--test", "both")
    assert {name: split["records"] for name, split in manifest["splits"].items()} == {
        "train": 240,
        "val": 30,
        "test": 30,
        "test_covered": 30,
    }
    assert manifest["splits"]["test"]["distance"] < manifest["splits"]["test_covered"]["distance"]
    run("--target-size", "300")
    assert not (tmp_path / "training" / "test_covered.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "`test.jsonl`, which is in the corpus's own shape: it tells how the corpus is predicted."),
        (
            ["--test", "covered"],
            "`test.jsonl`, which is in the selection's shape: it tells how rare scores are predicted.",
        ),
        (
            ["--test", "both"],
            "`test.jsonl`, which is in the corpus's own shape: it tells how the corpus is predicted; "
            "`test_covered.jsonl`, in the selection's shape, tells how rare scores are.",
        ),
        (["--train-ratio", "0.9", "--test-ratio", "0"], "records of another source: `test.jsonl` is empty."),
        (["--frozen-test"], "`test.jsonl`, which holds the records of the test set that was given."),
    ],
    ids=["natural", "covered", "both", "none", "frozen"],
)
def test_the_report_says_what_each_test_set_tells(run: Run, tmp_path: Path, flags: list[str], told: str) -> None:
    if flags == ["--frozen-test"]:
        run("--target-size", "200", "--test", "covered", out="first")
        flags = [*flags, str(tmp_path / "first/test.jsonl")]
    made = run("--target-size", "200", *flags)
    step = next(
        line for line in (tmp_path / "training/selection_report.md").read_text().splitlines() if "**Train**" in line
    )
    assert step.endswith(f"records) and judge by {told}")
    away = {name: split["distance"] for name, split in made["splits"].items() if split["records"]}
    if "both" in flags:
        assert away["test_covered"] > 2 * away["test"]


def test_weights_bring_the_margins_back(run: Run, labeled: Path, tmp_path: Path) -> None:
    manifest = run("--target-size", "500")
    scores = {r["id"]: r["uplifting_analysis"]["agency"] for r in map(json.loads, lines(labeled))}
    weights = {r["id"]: r["weight"] for r in map(json.loads, lines(tmp_path / "training" / "weights.jsonl"))}
    ids = list(weights)
    assert set(ids) == read_ids(tmp_path / "training" / "train.jsonl")
    weighted = np.average([scores[found] for found in ids], weights=[weights[found] for found in ids])
    assert weighted == pytest.approx(np.mean(list(scores.values())), abs=0.1)
    assert 0 < manifest["effective_size"] <= 400


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--test-ratio 0.2", "must add up to 1"),
        ("--target-size 2000", "2000 records are wanted and 900 can be used"),
        ("--target-size 0", "the target size is 0"),
        ("--dimensions agency,progres", "did you mean progress?"),
        ("--strategy active_learning --target-size 100", "active_learning needs --model-predictions"),
        ("--scale 10", "a scale has two ends"),
        ("--exclude gone.jsonl", "gone.jsonl: cannot be read"),
        ("--group-by satuan", "no record has 'satuan'"),
        ("--target-size 100 --test covered --group-by uplifting_analysis.reasoning", "groups are never divided"),
    ],
)
def test_a_mistake_is_one_clear_line(
    labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, message: str
) -> None:
    folder = tmp_path / "training"
    code = select_training_set(["--labeled-file", str(labeled), "--output-dir", str(folder), *flags.split()])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ocr_sprint")]
    assert code in (1, 2)
    assert len(said) == 1
    assert message in said[0]
    assert not (folder / "manifest.json").exists()


ROWS = "".join(json.dumps({"id": f"a{n}", "x_analysis": {"agency": n % 7}}) + "\n" for n in range(30))


@pytest.mark.parametrize("tool", [analyze_coverage, select_training_set], ids=["coverage", "selection"])
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            ROWS.encode("utf-16"),
            "not UTF-8 but UTF-16, as it seems; convert the file, such as with `iconv -f UTF-16 -t",
        ),
        (ROWS.encode("utf-16-be"), "`iconv -f UTF-16BE -t UTF-8 'my labels.jsonl' > utf8.jsonl`"),
        (b"\n\n", "my labels.jsonl: empty; there is no record to read"),
        (
            ROWS.replace('"agency": ', '"agency": 5').encode(),
            "30 of 30: a number off the scale; give both ends of the scale (such as: ",
        ),
        (b"[1]\n[2]\n{}\n", "2 of 3: not a JSON object (such as: [1])"),
        (b'{"id": "a", "text": "x"}\n' * 3, "3 of 3: no number among the values (such as: it has id, text)"),
    ],
    ids=["utf-16", "utf-16-be", "empty", "off the scale", "lists", "no numbers"],
)
def test_a_file_without_usable_records_says_why(
    tool: Callable[[list[str]], int], raw: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my labels.jsonl"
    path.write_bytes(raw)
    assert tool(["--labeled-file", str(path)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said


def test_predictions_for_other_ids_are_refused(
    labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "predictions.jsonl"
    with atomic_writer(other) as out:
        out.write(json.dumps({"id": "x1", "prediction": dict.fromkeys(DIMENSIONS, 5)}).encode() + b"\n")
    flags = ["--strategy", "active_learning", "--target-size", "100", "--model-predictions", str(other)]
    assert select_training_set(["--labeled-file", str(labeled), *flags]) == 2
    assert "scores for 0 of 900 records; there are none for a0, a1, a2 and others" in capsys.readouterr().err


def test_rejected_records_are_said_and_strict_counts_them(
    run: Run, labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with labeled.open("ab") as out:
        out.write(b'{"id": "bad", "uplifting_analysis": {"agency": 99}}\n')
    manifest = run("--target-size", "100", "--strict", code=3)
    assert manifest["rejected"] == {"score off the scale": 1}
    assert "read 901, used 900, rejected 1; score off the scale: 1" in capsys.readouterr().err
    assert "line 901: agency is 99" in (tmp_path / "training" / "selection_report.md").read_text()


BAD_LABELS = [
    ({"wonder": None}, "missing dimension: 2", "line 901: wonder"),
    ({"wonder": "tujuh"}, "score is not a number: 2", "line 901: wonder is 'tujuh'"),
    ({"wonder": 10.5}, "score off the scale: 2", "line 901: wonder is 10.5"),
    ({"wonder": -1}, "score off the scale: 2", "line 901: wonder is -1"),
    ({}, "duplicate id: 2", "line 901: a0 is also"),
    (b'{"id": "cut', "not a JSON value: 2", "line 901: "),
    ([], "no id: 2", "line 901: id is 'None'"),
]


@pytest.mark.parametrize(("fault", "counted", "example"), BAD_LABELS)
def test_a_bad_record_is_counted_with_an_example(
    run: Run, labeled: Path, capsys: pytest.CaptureFixture[str], fault: Any, counted: str, example: str
) -> None:
    good = json.loads(lines(labeled)[0])
    if isinstance(fault, dict):
        fault = {"id": "x1" if fault else "a0", "uplifting_analysis": good["uplifting_analysis"] | fault}
    with labeled.open("ab") as out:
        out.write(2 * ((fault if isinstance(fault, bytes) else json.dumps(fault).encode()) + b"\n"))
    assert analyze_coverage(["--labeled-file", str(labeled)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("read ")]
    assert run("--target-size", "60")["used"] == 900
    assert said == [line for line in capsys.readouterr().err.splitlines() if line.startswith("read ")]
    assert len(said) == 1
    assert said[0].startswith("read 902, used 900, rejected 2; ")
    assert counted in said[0]
    assert example in said[0]


def test_coverage_is_written_three_times(labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "coverage_report.json"
    assert analyze_coverage(["--labeled-file", str(labeled), "--output", str(output)]) == 0
    found = Coverage.model_validate_json(output.read_bytes())
    assert [entry.name for entry in found.dimensions] == list(DIMENSIONS)
    assert found.used == 900
    assert output.with_suffix(".md").read_text().startswith("# Coverage")
    assert "plotly" in output.with_suffix(".html").read_text()
    assert capsys.readouterr().out == ""
    assert analyze_coverage(["--labeled-file", str(labeled)]) == 0
    assert capsys.readouterr().out == output.with_suffix(".md").read_text()


def test_the_only_labels_below_datasets_are_found(
    labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "datasets" / "ground_truth_20k" / "uplifting"
    place.mkdir(parents=True)
    labeled.rename(place / labeled.name)
    monkeypatch.chdir(tmp_path)
    assert select_training_set(["--target-size", "100", "--strategy", "extreme_focus"]) == 0
    assert (place / "training_100_extreme_focus" / "manifest.json").is_file()
    (tmp_path / "datasets" / "labeled_articles.jsonl").touch()
    assert select_training_set(["--target-size", "100"]) == 2
    assert "which labels? there are 2" in capsys.readouterr().err


@pytest.fixture
def own(labeled: Path, tmp_path: Path) -> Path:
    """A folder of one's own, with labels under the name of a split."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(labeled.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--labeled-file", "train.jsonl"),
        ("--exclude", "test_covered.jsonl"),
        ("--frozen-test", "test.jsonl"),
        ("--model-predictions", "weights.jsonl"),
        ("--other-labels", "val.jsonl"),
    ],
)
def test_what_is_read_is_never_replaced(
    run: Run, labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str
) -> None:
    run("--target-size", "100", "--no-copies")
    source = tmp_path / "training" / name
    source.write_bytes(labeled.read_bytes())
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    before = {path.name: path.read_bytes() for path in source.parent.iterdir()}
    flags = ["--output-dir", str(source.parent), "--target-size", "50", "--no-sidecar", flag, str(link)]
    named = [] if flag == "--labeled-file" else ["--labeled-file", str(labeled)]
    assert select_training_set([*named, *flags]) == 2
    assert "link.jsonl: is read, and would be replaced" in capsys.readouterr().err.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in source.parent.iterdir()} == before


def test_a_folder_with_files_of_others_under_these_names_is_left_alone(
    own: Path, labeled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--labeled-file", str(labeled), "--output-dir", str(own), "--target-size", "50", "--no-copies"]
    for manifest in (None, "{}", "[]", "no JSON", '{"files": [], "settings": {}}'):
        if manifest is not None:
            (own / "manifest.json").write_text(manifest)
        assert select_training_set(flags) == 2
        assert "is there already, and manifest.json does not say" in capsys.readouterr().err.splitlines()[-1]
        assert (own / "train.jsonl").read_bytes() == labeled.read_bytes()


def test_writing_itself_refuses_what_was_read(own: Path, labeled: Path) -> None:
    """As the panel does, which knows its folder only then."""
    task = Task(Wish(50), Division(), copies=False)
    for source, aside in ((own / "train.jsonl", Aside()), (labeled, Aside([own / "train.jsonl"]))):
        records, account = read_corpus([source], task.choices, sidecar=False)
        pool = prepare(records, account, replace(task, aside=replace(aside, exclude=())))
        made, job = build(pool, replace(task, aside=aside))
        with pytest.raises(UsageError, match="is read, and would be replaced"):
            write_training_set(own, made, pool.records, job)
        assert [path.name for path in own.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 5])
def test_a_run_that_ends_while_it_writes_leaves_the_earlier_set(
    run: Run, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    run("--target-size", "100", "--no-copies", "--test", "both")
    folder = tmp_path / "training"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    left = [writes]

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def write(*told: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("the end")
            real(*told)

        return write

    for name in ("write_lines", "write_report"):
        monkeypatch.setattr(training_files, name, failing(getattr(training_files, name)))
    flags = ["--labeled-file", str(labeled), "--output-dir", str(folder), "--target-size", "200", "--no-copies"]
    with pytest.raises(RuntimeError, match="the end"):
        select_training_set(flags)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_smaller_division_leaves_no_file_of_the_earlier_set(run: Run, tmp_path: Path) -> None:
    run("--target-size", "100", "--no-copies", "--test", "both")
    manifest = run("--target-size", "100", "--no-copies")
    assert not (tmp_path / "training" / "test_covered.jsonl").exists()
    parts = [read_ids(tmp_path / "training" / split["file"]) for split in manifest["splits"].values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 100


def test_two_runs_do_not_write_into_one_folder(
    labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--labeled-file", str(labeled), "--output-dir", str(tmp_path / "both"), "--target-size", "50"]
    with only_writer(tmp_path / "both"):
        assert select_training_set([*flags, "--no-copies"]) == 2
    assert "both: another run is writing there" in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "both").iterdir())


def predicted(labeled: Path, path: Path, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> Path:
    """Predictions as `predict` writes them."""
    with atomic_writer(path) as out:
        for number, line in enumerate(lines(labeled)):
            record = json.loads(line)
            digest = hashlib.blake2b(record["text"].encode(), digest_size=16).hexdigest()
            guess = {name: (record["uplifting_analysis"][name] + number % 5) for name in DIMENSIONS}
            told = {"id": record["id"], "text_digest": digest, "oof": True, "predictions": guess}
            out.write(json.dumps(change(number, told)).encode() + b"\n")
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda _number, one: one | {"oof": False},
            "900 of 900 predictions, such as that of a0, are of texts that the",
        ),
        (lambda number, one: one | {"oof": number > 3}, "4 of 900 predictions, such as that of a0, are of texts"),
        (lambda number, one: one | {"id": "a7"} if number == 8 else one, "line 9: a7 is also"),
        (
            lambda number, one: one | {"text_digest": "00"} if number == 5 else one,
            "the prediction of a5 is of another text than",
        ),
    ],
)
@pytest.mark.parametrize(
    "flags",
    [
        "--strategy active_learning --model-predictions",
        "--filter-by-difficulty hard --model-predictions",
        "--filter-by-difficulty hard --other-labels",
    ],
)
def test_only_predictions_out_of_fold_of_these_texts_count(
    labeled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[int, dict[str, Any]], dict[str, Any]],
    told: str,
    flags: str,
) -> None:
    predictions = predicted(labeled, tmp_path / "predictions.jsonl", change)
    asked = ["--labeled-file", str(labeled), "--output-dir", str(tmp_path / "none"), "--target-size", "100"]
    assert select_training_set([*asked, "--no-copies", *flags.split(), str(predictions)]) == 1
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "none").exists()


def test_honest_predictions_and_seen_ones_of_excluded_records_are_taken(
    run: Run, labeled: Path, tmp_path: Path
) -> None:
    predictions = predicted(labeled, tmp_path / "predictions.jsonl", lambda number, one: one | {"oof": number > 3})
    (tmp_path / "seen.txt").write_bytes(b"a0\na1\r\n\na2\na3\n")
    flags = ["--target-size", "100", "--no-copies", "--strategy", "active_learning", "--model-predictions"]
    manifest = run(*flags, str(predictions), "--exclude", str(tmp_path / "seen.txt"))
    assert manifest["pool"] + sum(manifest["splits"][name]["records"] for name in ("val", "test")) <= 896


def test_copies_are_sought_where_the_text_is_blank_and_the_body_is_elsewhere(labeled: Path, tmp_path: Path) -> None:
    source = tmp_path / "moved.jsonl"
    with atomic_writer(source) as out:
        for line in lines(labeled)[:100]:
            record = json.loads(line)
            for name in (record["id"], f"copy {record['id']}"):
                out.write(json.dumps(record | {"id": name, "text": " ", "body": record["text"]}).encode() + b"\n")
    task = Task(Wish(20), Division())
    pool = prepare(*read_corpus([source], task.choices, sidecar=False), task)
    assert pool.groups.tolist() == [row // 2 * 2 for row in range(200)]


def test_one_group_of_everything_is_said(labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    footer = " ".join(f"Hak cipta dilindungi, bagian {number} dari ketentuan." for number in range(60))
    source = tmp_path / "footers.jsonl"
    with atomic_writer(source) as out:
        for line in lines(labeled)[:200]:
            record = json.loads(line)
            out.write(json.dumps(record | {"text": record["text"][:80] + footer}).encode() + b"\n")
    flags = ["--labeled-file", str(source), "--output-dir", str(tmp_path / "out"), "--target-size", "50"]
    select_training_set(flags)
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "holds 200 of 200 records" in note
    assert "--no-copies" in note
    assert select_training_set([*flags, "--no-copies"]) == 0
    assert "note: " not in capsys.readouterr().err


@pytest.mark.parametrize("one", [0, "0"])
def test_zero_is_an_id(tmp_path: Path, one: int | str) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text(json.dumps({"id": one, "job_id": "other"}) + '\n{"id": "", "article_id": 7}\n')
    assert read_ids(path) == {"0", "7"}


@pytest.mark.parametrize("one", ["", None, True, 1.5, [], {}])
def test_what_is_no_id_is_refused(tmp_path: Path, one: object) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text(json.dumps({"id": one}) + "\n")
    with pytest.raises(DataError, match="line 1: the record has no id"):
        read_ids(path)


@pytest.mark.parametrize("one", [" a1", "a1 ", "a1\t", "\u00a0a1"])
def test_spaces_around_an_id_in_a_list_are_one_line(tmp_path: Path, one: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(f"a0\n{one}\n")
    with pytest.raises(DataError, match=r"line 2: has spaces around the id a1; remove them"):
        read_ids(path)
    path.write_text(json.dumps({"id": one}) + "\n")
    assert read_ids(path) == {one}
