"""The selection panel without a browser: settings as a command, answers, and the files that the command makes again."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_samples import write_labels

from ocr_sprint.core.errors import DataError, UsageError, UserError
from ocr_sprint.ground_truth import solver
from ocr_sprint.ground_truth.certificate import Problem
from ocr_sprint.ground_truth.corpus import Choices, read_corpus
from ocr_sprint.ground_truth.floors import FloorBin, floor_bins
from ocr_sprint.ground_truth.pool import Level, group_records
from ocr_sprint.ground_truth.select import Selection
from ocr_sprint.ground_truth.strategies import Strategy, Wish
from ocr_sprint.ground_truth.training_set import Division, TestKind
from ocr_sprint.ground_truth.training_task import Aside, Reading, Task
from ocr_sprint.panels.selection import SelectionPanel, selection_panel
from ocr_sprint.panels.selection_desk import History, SelectionDesk
from ocr_sprint.panels.selection_settings import flags_of, settings_of, task_of
from ocr_sprint.panels.selection_worker import Corpus
from ocr_sprint.tools import select_training_set as tool
from ocr_sprint.tools.cli import add_parameters
from ocr_sprint.tools.words import command_words

THREE = ("agency", "progress", "wonder")


@pytest.fixture
def labeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labels, named as a person in their folder names them."""
    monkeypatch.chdir(tmp_path)
    return write_labels(Path("labeled_articles.jsonl"), 700, THREE, copies=20)


def predictions(path: Path, labeled: Path) -> Path:
    """What a model would say: off by one for every third article."""
    with path.open("w") as out:
        for number, line in enumerate(labeled.read_text().splitlines()):
            record = json.loads(line)
            scores = {name: min(10, record["uplifting_analysis"][name] + (number % 3 == 0)) for name in THREE}
            out.write(json.dumps({"id": record["id"], "predictions": scores}) + "\n")
    return path


def set_all(panel: SelectionPanel, **texts: str) -> dict[str, Any]:
    """Move these controls, wait, and give what a screen that opens would get."""
    for name, text in texts.items():
        panel.desk.answer("change", {"name": name, "text": text, "settled": True})
    panel.desk.wait()
    return panel.desk.answer("open", {})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


CASES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {"target_size": "150", "strategy": "extreme_focus", "floor": "6", "output_dir": "a folder"}),
    ({}, {"target_size": "120", "blend": "0.35", "source_cap": "30", "test": "both", "seed": "-7"}),
    ({"group_by": ["source"], "copies": False}, {"target_size": "630", "test": "covered", "strategy": "random"}),
    (
        {"model_predictions": "predictions.jsonl"},
        {"strategy": "active_learning", "error_weight": "2.5", "target_size": "90"},
    ),
    (
        {"frozen_test": "frozen.txt", "exclude": ["used.txt"]},
        {"target_size": "100", "train_ratio": "0.6", "val_ratio": "0.3"},
    ),
    (
        {"dimensions": "wonder,agency"},
        {"filter_by_difficulty": "hard", "target_size": "60", "strategy": "iqr_optimization"},
    ),
    (
        {},
        {"target_size": "150", "weights: agency": "2.5", "weights: wonder": "0.3", "weights: tier": "4", "floor": "3"},
    ),
]


@pytest.mark.parametrize(
    ("opened", "texts"), CASES, ids=["folder", "blend", "groups", "active", "frozen", "difficulty", "weights"]
)
def test_the_command_on_the_screen_makes_the_same_files(
    labeled: Path, opened: dict[str, Any], texts: dict[str, str]
) -> None:
    predictions(Path("predictions.jsonl"), labeled)
    Path("frozen.txt").write_text("artikel-3\nartikel-30\n")
    Path("used.txt").write_text("artikel-4\n")
    panel = selection_panel(str(labeled), **opened)
    state = set_all(panel, **texts)["state"]
    assert (state["problem"], state["busy"]) == ("", False)
    assert panel.desk.answer("write", {}) == {"exists": ""}
    panel.desk.wait()
    mine = contents(Path(state["folder"]))
    assert {"train.jsonl", "manifest.json", "weights.jsonl", "selection_report.html"} <= set(mine)
    Path(state["folder"]).rename("panel")
    name, *words = shlex.split(state["command"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert contents(Path(state["folder"])) == mine
    panel.close()


class AskedError(Exception):
    """What the command would carry out."""


def not_run(*given: Any) -> None:
    raise AskedError(*given)


paths = st.sampled_from(["a.jsonl", "b c.jsonl", "-odd.jsonl", "data/ü.jsonl"]).map(Path)
shares = st.integers(0, 10).flatmap(lambda train: st.integers(0, 10 - train).map(lambda val: (train / 10, val / 10)))
texts = st.sampled_from(["plain", "-", "--seed", "two words", "o'clock", "$HOME"])
wishes = st.builds(
    Wish,
    st.integers(1, 10**6),
    st.sampled_from(get_args(Strategy)),
    st.integers(-(10**9), 10**9),
    st.floats(0, 1),
    st.integers(0, 500),
    st.none() | st.integers(1, 500),
    st.floats(0, 100),
    st.dictionaries(
        st.sampled_from(["agency", "tier", "a=b", "two words", "-odd"]),
        st.floats(0.01, 100).filter(lambda weight: weight != 1),
    ),
)
divisions = st.builds(
    lambda pair, test: Division(*pair, round(1 - sum(pair), 1), test), shares, st.sampled_from(get_args(TestKind))
)
tasks = st.builds(
    Task,
    wishes,
    divisions,
    st.builds(
        Choices,
        st.none() | texts,
        st.sampled_from([(), (0.0, 5.0), (-2.5, 2.5)]),
        st.none() | texts,
        st.none() | texts,
        st.lists(texts, max_size=3).map(tuple),
    ),
    st.builds(
        Aside,
        st.lists(paths, max_size=3).map(tuple),
        st.none() | paths,
        st.none() | paths,
        st.none() | paths,
        st.none() | st.sampled_from(get_args(Level)),
    ),
    st.booleans(),
    st.none() | texts,
    st.builds(Reading, st.booleans(), st.integers(1, 9), st.none() | texts),
)


@given(tasks, st.lists(paths, min_size=1, max_size=3), st.none() | paths)
@settings(max_examples=150, deadline=None)
def test_the_command_asks_for_the_task_it_was_written_for(task: Task, labeled: list[Path], folder: Path | None) -> None:
    task = replace(task, aside=replace(task.aside, seed=task.wish.seed))
    words = command_words(tool.select_training_set, flags_of(labeled, folder, task))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_parameters(parser, tool.select_training_set)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "_run", not_run)
        with pytest.raises(AskedError) as caught:
            tool.select_training_set(**vars(parser.parse_args(words[2:])))
    files, out, asked = caught.value.args
    assert (list(files), out) == (labeled, folder)
    choices = replace(asked.choices, scale=tuple(asked.choices.scale), groups=tuple(asked.choices.groups))
    assert replace(asked, choices=choices, aside=replace(asked.aside, exclude=tuple(asked.aside.exclude))) == task


@given(tasks)
@settings(max_examples=80, deadline=None)
def test_what_the_controls_show_of_a_task_leads_back_to_it(task: Task) -> None:
    task = replace(task, aside=replace(task.aside, seed=task.wish.seed))
    assert task_of(task, settings_of(task)) == task


def test_every_option_of_the_command_is_settled_by_a_task() -> None:
    names = set(flags_of((), None, Task(Wish(1), Division())))
    assert names == set(tool.select_training_set.__annotations__) - {"strict", "return"}


def test_the_panel_takes_every_option_of_the_command_with_its_default() -> None:
    command, panel = (signature(each).parameters for each in (tool.select_training_set, selection_panel))
    assert [name for name in command if name != "strict"] == list(panel)
    differ = [name for name, each in panel.items() if each.default != command[name].default]
    assert differ == ["target_size"], "a small corpus has no 2,000 records"


def test_what_a_panel_is_opened_with_is_what_its_controls_and_its_command_say(labeled: Path) -> None:
    predictions(Path("predictions.jsonl"), labeled)
    given: dict[str, Any] = {
        "output_dir": "chosen",
        "target_size": 120,
        "strategy": "active_learning",
        "train_ratio": 0.7,
        "val_ratio": 0.2,
        "filter_by_difficulty": "medium",
        "model_predictions": "predictions.jsonl",
        "seed": 3,
        "test": "both",
        "floor": 2,
        "source_cap": 40,
        "blend": 0.1,
        "error_weight": 1.5,
        "weights": {"agency": 2, "tier": 0.5},
        "exclude": "used.txt",
        "group_by": ["source"],
        "copies": False,
        "processes": 2,
    }
    Path("used.txt").write_text("artikel-4\n")
    panel = selection_panel(labeled, **given)
    state = set_all(panel)["state"]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_parameters(parser, tool.select_training_set)
    asked = vars(parser.parse_args(shlex.split(state["command"])[2:]))
    expected = {**given, "exclude": (Path("used.txt"),), "output_dir": Path("chosen"), "weights": "agency=2,tier=0.5"}
    expected |= {"model_predictions": Path("predictions.jsonl"), "group_by": ("source",)}
    assert {name: tuple(found) if isinstance(found := asked[name], list) else found for name in given} == expected
    assert {
        name: state["settings"][name] for name in ("floor", "weights: agency", "weights: tier", "weights: wonder")
    } == {
        "floor": "2",
        "weights: agency": "2",
        "weights: tier": "0.5",
        "weights: wonder": "1",
    }
    assert state["problem"] == ""
    panel.close()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"weights": "agenci=2"}, "there is no 'agenci' to give a weight; there are agency, progress, wonder, tier"),
        ({"weights": {"agency": 0}}, "the weight of agency is 0; give a number from 0.01 to 100"),
        ({"strategy": "best"}, "there is no strategy 'best'"),
        ({"target_size": 0}, "the target size is 0; give at least 1"),
        ({"source": "publisher", "source_cap": 5}, "publisher"),
    ],
)
def test_settings_to_begin_with_that_cannot_be_are_an_error_of_the_cell(
    labeled: Path, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError) as caught:
        selection_panel(labeled, **given)
    assert problem in str(caught.value)


names = st.sampled_from(["floor", "blend", "seed"])
moves = st.tuples(st.just("change"), names, st.sampled_from("0123"), st.booleans()) | st.sampled_from(
    [("undo",), ("redo",)]
)


@given(st.lists(moves, max_size=30))
@settings(max_examples=100, deadline=None)
def test_undo_and_redo_lead_back_and_forth(steps: list[tuple[Any, ...]]) -> None:
    history = History({"floor": "0", "blend": "0", "seed": "0"})
    for step in steps:
        if step[0] == "change":
            history.change(*step[1:])
        else:
            history.move(-1 if step[0] == "undo" else 1)
    now, seen = dict(history.now), []
    while history.ways[0]:
        history.move(-1)
        seen.append(dict(history.now))
    assert history.now == {"floor": "0", "blend": "0", "seed": "0"}
    for expected in [*reversed(seen[:-1]), now][: len(seen)]:
        history.move(1)
        assert history.now == expected


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({"target_size": "0"}, "the target size is 0; give at least 1"),
        ({"target_size": "1e3"}, "Records: '1e3' is not a whole number"),
        ({"target_size": "721"}, "721 records are wanted and 720 can be used; give a smaller target size"),
        ({"blend": "1.1"}, "the blend is 1.1; give a share from 0 to 1"),
        ({"test_ratio": "0.3"}, "0.8 + 0.1 + 0.3 = 1.2; they must add up to 1"),
        ({"train_ratio": "nan"}, "must add up to 1"),
        ({"error_weight": "inf"}, "Error weight: give a number that ends"),
        ({"error_weight": "nan"}, "cannot be negative"),
        ({"floor": "-1"}, "floor, source cap and error weight cannot be negative"),
        ({"weights: agency": "much"}, "Weight of agency: 'much' is not a number"),
        ({"weights: tier": "-2"}, "the weight of tier is -2; give a number from 0.01 to 100"),
        ({"weights: wonder": "inf"}, "the weight of wonder is inf"),
        ({"source_cap": "2"}, "with 2 per source there are 18 records"),
        ({"strategy": "best"}, "there is no 'best'; there are maximize_coverage"),
        ({"strategy": ""}, "Strategy"),
        ({"strategy": "active_learning"}, "active_learning needs --model-predictions"),
        ({"filter_by_difficulty": "hard"}, "241 records"),
    ],
)
def test_what_cannot_be_is_one_line_and_the_last_result_stays(
    labeled: Path, texts: dict[str, str], problem: str
) -> None:
    panel = selection_panel(labeled, target_size=200 if "filter_by_difficulty" not in texts else 260)
    panel.desk.wait()
    before = panel.desk.answer("open", {})["result"]
    if "filter_by_difficulty" in texts:
        problem = "260 records are wanted and 240 can be used"
    opened = set_all(panel, **texts)
    state = opened["state"]
    assert problem in state["problem"]
    assert "\n" not in state["problem"]
    assert not state["busy"]
    assert opened["result"] == before
    assert opened["result"]["turn"] < state["turn"], "the screen can tell that it belongs to other settings"
    with pytest.raises(UsageError, match="no training set on the screen"):
        panel.desk.answer("write", {})
    assert not panel.desk.answer("undo", {})["problem"]
    panel.close()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("dance", {}),
        ("change", {}),
        ("change", {"name": "labeled_file", "text": "/etc/passwd"}),
        ("change", {"name": "seed", "text": 5}),
        ("change", {"name": ["seed"], "text": "5"}),
    ],
)
def test_a_message_that_makes_no_sense_is_refused_in_one_line(
    labeled: Path, kind: str, body: Mapping[str, Any]
) -> None:
    panel = selection_panel(labeled, target_size=50)
    with pytest.raises(UserError):
        panel.desk.answer(kind, body)
    assert set_all(panel)["state"]["problem"] == ""
    panel.close()


def test_all_views_hear_of_every_change_and_of_the_newest_result_alone(labeled: Path) -> None:
    panel = selection_panel(labeled, target_size=50)
    panel.desk.wait()
    told: list[tuple[str, Mapping[str, Any]]] = []
    desk = SelectionDesk(panel.desk._corpus, Task(Wish(50), Division()), lambda *each: told.append(each))
    for size in range(100, 140):
        desk.answer("change", {"name": "target_size", "text": str(size), "settled": size == 139})
    desk.wait()
    assert [body["turn"] for kind, body in told if kind == "state"] == list(range(1, 42))
    compared = [body["line"] for kind, body in told if kind == "grouping"]
    assert compared == [f"comparing texts: {percent}% of 720" for percent in range(101)], "once"
    results = [body for kind, body in told if kind == "result"]
    assert results[-1]["turn"] == 41
    assert len(results) < 41
    assert desk.answer("open", {})["result"] == results[-1]
    assert desk.answer("undo", {})["settings"]["target_size"] == "50", "a slider that was pulled is one step"
    panel.close()


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often something was solved: to select, and to set validation and test aside."""
    counts = {"select": 0, "splits": 0}

    def counted(name: str) -> None:
        def solve(*given: Any) -> Any:
            counts[name] += 1
            return solver.solve(*given)

        monkeypatch.setattr(f"ocr_sprint.ground_truth.{name}.solve", solve)

    for name in counts:
        counted(name)
    return counts


def test_what_is_known_is_not_solved_again(labeled: Path, solved: dict[str, int]) -> None:
    panel = selection_panel(labeled, target_size=100)
    panel.desk.wait()

    def took(**texts: str) -> dict[str, int]:
        before = dict(solved)
        opened = set_all(panel, **texts)
        assert opened["result"]["turn"] == opened["state"]["turn"]
        return {name: count - before[name] for name, count in solved.items()}

    assert took() == {"select": 0, "splits": 0}
    assert took(output_dir="elsewhere") == {"select": 0, "splits": 0}
    assert took(strategy="extreme_focus", floor="3")["splits"] == 0, "validation and test do not depend on it"
    assert took(floor="0")["select"] == 0, "what floors cost was told from the same without floors"
    assert took(test="covered")["select"] == 1
    shares = took(train_ratio="0.6", val_ratio="0.3")
    assert (shares["select"], shares["splits"] > 0) == (0, True), "the selection is only divided in another way"
    for _ in range(3):
        panel.desk.answer("undo", {})
    assert took() == {"select": 0, "splits": 0}
    panel.close()


def test_a_selection_that_is_overtaken_ends_between_its_parts(labeled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounded: list[int] = []

    def whole(problem: Problem, *given: Any, **more: Any) -> Any:
        found = rounding(problem, *given, **more)
        rounded.append(problem.size)
        return found

    rounding = solver._round
    monkeypatch.setattr(solver, "_round", whole)
    told: list[tuple[str, int]] = []

    def tell(kind: str, body: Mapping[str, Any]) -> None:
        told.append((kind, body["turn"]))
        if (kind, body["turn"]) == ("bound", 1):
            desk.answer("change", {"name": "target_size", "text": "300", "settled": True})

    read = selection_panel(labeled, target_size=50)
    read.desk.wait()
    corpus = read.desk._corpus
    rounded.clear()
    desk = SelectionDesk(corpus, Task(Wish(200), Division()), tell)
    desk.wait()
    assert 160 not in rounded, "the first wish has its bound, and is never rounded"
    assert rounded[-1] == 240
    assert [each for each in told if each[0] in ("bound", "result", "problem")] == [
        ("bound", 1),
        ("bound", 2),
        ("result", 2),
    ]
    read.close()


def test_a_search_for_copies_goes_on_for_whatever_is_wanted_then(
    labeled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []

    def group(records: Any, *given: Any, **more: Any) -> Any:
        searched.append(len(records))
        return group_records(records, *given, **more)

    monkeypatch.setattr("ocr_sprint.ground_truth.training_task.group_records", group)
    told: list[tuple[int, str]] = []
    go_on = threading.Event()

    def tell(kind: str, body: Mapping[str, Any]) -> None:
        if kind == "grouping":
            told.append((body["turn"], body["line"]))
            if len(told) == 50:
                go_on.wait(60)

    opened = read_corpus([labeled], Choices(), sidecar=False)
    desk = SelectionDesk(Corpus((labeled,), *opened), Task(Wish(200), Division()), tell)
    desk.answer("change", {"name": "floor", "text": "2", "settled": True})
    go_on.set()
    desk.wait()
    assert searched == [720]
    assert told[-1] == (2, "comparing texts: 100% of 720")
    assert desk.answer("open", {})["result"]["turn"] == 2


@pytest.mark.parametrize(
    ("texts", "which"),
    [
        ({}, ""),
        ({"floor": "6", "blend": "0.3"}, " with all floors met"),
        ({"strategy": "raking", "test": "both"}, ""),
        ({"source_cap": "40"}, None),
        ({"strategy": "iqr_optimization"}, None),
    ],
    ids=["plain", "floors", "raking", "caps", "quartiles"],
)
def test_the_bound_that_is_told_early_is_that_of_the_result(
    labeled: Path, texts: dict[str, str], which: str | None
) -> None:
    panel = selection_panel(labeled, target_size=200)
    panel.desk.wait()
    told: list[tuple[str, Mapping[str, Any]]] = []
    panel.desk._worker._tell = lambda *each: told.append(each)
    set_all(panel, **texts, seed="5")
    kinds = [kind for kind, body in told if body["turn"] == panel.desk._worker.turn]
    assert [kind for kind in kinds if kind != "floors"] == [
        "solving",
        *["bound"] * (which is not None),
        "result",
    ]
    if which is not None:
        bound = panel.desk._worker.good.made.selection.bound
        (line,) = [body["line"] for kind, body in told if kind == "bound" and body["turn"] == panel.desk._worker.turn]
        assert line == f"solving … at most {bound:.4f}{which}"
    panel.close()


def test_files_are_written_once_at_a_time(labeled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = selection_panel(labeled, target_size=50, output_dir="out")
    panel.desk.wait()
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*_: Any) -> None:
        begun.set()
        go_on.wait(60)

    monkeypatch.setattr("ocr_sprint.panels.selection_desk.write_training_set", slowly)
    panel.desk.answer("write", {})
    assert begun.wait(60)
    assert panel.desk.answer("open", {})["state"]["writing"]
    with pytest.raises(UsageError, match="files are being written"):
        panel.desk.answer("write", {})
    go_on.set()
    panel.desk.wait()
    assert not panel.desk.answer("open", {})["state"]["writing"]
    panel.close()


def test_the_splits_that_are_shown_are_those_that_are_written(labeled: Path) -> None:
    panel = selection_panel(labeled, target_size=100, output_dir="out")
    result = set_all(panel, test="both")["result"]
    panel.desk.answer("write", {})
    panel.desk.wait()
    for name, count, _ in result["splits"]["rows"]:
        assert len(Path("out", f"{name}.jsonl").read_bytes().splitlines()) == int(count)
    assert result["splits"]["leaks"] == 0
    assert json.loads(Path("out", "manifest.json").read_text())["digest"] == result["digest"]
    panel.close()


def test_weights_are_beside_the_score_and_only_those_that_differ_in_the_command(labeled: Path) -> None:
    panel = selection_panel(labeled, target_size=600)
    weighed = {name: f"weights: {name}" for name in (*THREE, "tier")}
    plain = set_all(panel, **dict.fromkeys(weighed.values(), "1.0"))
    shown = [control["label"] for control in plain["controls"] if control["group"] == "weights"]
    assert shown == list(weighed)
    assert "--weights" not in plain["state"]["command"]
    changed = set_all(panel, **{weighed["agency"]: "3", weighed["wonder"]: "", weighed["tier"]: "0.5"})
    assert "--weights agency=3,tier=0.5" in changed["state"]["command"]
    assert "places count by weight (agency=3,tier=0.5)" in changed["result"]["verdict"]
    assert changed["result"]["tiles"][0]["note"] == "part of the places asked for that are filled, by their weights"
    assert changed["result"]["digest"] != plain["result"]["digest"]
    panel.close()


def test_floors_that_bind_are_those_that_the_strategy_stays_below(labeled: Path) -> None:
    panel = selection_panel(labeled, target_size=100)
    floors = set_all(panel, strategy="extreme_focus", floor="7")["result"]["floors"]
    kept = panel.desk._worker._solver
    wish = Wish(100, "extreme_focus", floor=7)
    lifted = kept.made(Task(wish, Division(), panel.desk._opened.choices))[0].selection
    free = kept.made(Task(replace(wish, floor=0), Division(), panel.desk._opened.choices))[0].selection
    binding = [each for each in floor_bins(lifted, free) if each.binds]
    assert binding
    assert floors["line"].startswith(f"{len(binding)} of 33 floors bind")
    assert {(row[0], row[1]) for row in floors["rows"]} <= {(each.dimension, each.score) for each in binding}
    assert all(each.chosen >= each.floor > each.freely for each in binding)
    panel.close()


@pytest.mark.parametrize(
    ("binding", "said"), [(1, "1 of 33 floors binds; it costs "), (2, "2 of 33 floors bind; together they cost ")]
)
def test_one_floor_is_spoken_of_as_one(labeled: Path, binding: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(chosen: Selection, free: Selection) -> list[FloorBin]:
        found = [each._replace(freely=each.floor) for each in floor_bins(chosen, free)]
        return [each._replace(freely=each.floor - 1) for each in found[:binding]] + found[binding:]

    monkeypatch.setattr("ocr_sprint.panels.selection_view.floor_bins", some)
    panel = selection_panel(labeled, target_size=100, floor=3)
    assert set_all(panel)["result"]["floors"]["line"].startswith(said)
    panel.close()


def test_labels_that_cannot_be_read_are_an_error_of_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="which labels"):
        selection_panel()
    Path("labels.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises((DataError, UsageError)):
        selection_panel("labels.jsonl")
