"""The calibration panel without a browser: its messages, what it keeps, and the report that comes of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calibration_samples import DIMENSIONS, FILTER, calibrated, notice
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_mock import MockServer

from ocr_sprint.core.errors import DataError, UsageError, UserError
from ocr_sprint.ground_truth.calibration_records import read_compared
from ocr_sprint.ground_truth.filters import Scale, load_filter
from ocr_sprint.ground_truth.label_journal import entries
from ocr_sprint.ground_truth.person_scores import PersonScores
from ocr_sprint.ground_truth.ratings import read_people
from ocr_sprint.panels.calibration import CalibrationSession, calibration_panel
from ocr_sprint.panels.calibration_texts import ScoringDesk, facts_of
from ocr_sprint.panels.screen import program, reply
from ocr_sprint.tools.calibrate_oracle import main

PACKAGE = load_filter(FILTER)


class Sitting:
    "A person at the panel, with what every view was told."

    def __init__(self, report: Path, name: str = "analyst-a") -> None:
        compared = read_compared(report, apart_from=[report.with_suffix("") / "people" / f"{name}.jsonl"])
        self.person = PersonScores(report.with_suffix("") / "people", name, compared.package, compared.articles)
        self.told: list[tuple[str, Any]] = []
        self.desk = ScoringDesk(compared, self.person)
        tell = lambda kind, body: self.told.append((kind, body))  # noqa: E731  # one list of both
        self.session = CalibrationSession(self.desk, tell=tell, start=lambda work: work())

    def ask(self, kind: str, **body: Any) -> Any:
        return self.session.answer(kind, body)

    def score_text(self, name: str, value: int = 5) -> Any:
        for field in DIMENSIONS:
            self.ask("score", id=name, field=field, value=value)
        return self.ask("score", id=name, field="content_type", value="other")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated(tmp_path_factory.mktemp("made"))


@pytest.fixture
def report(made: Path, tmp_path: Path) -> Path:
    "A calibration that nobody has scored yet, with the labels where they were."
    subprocess.run(["cp", "-r", str(made.parent), str(tmp_path)], check=True)
    return tmp_path / made.parent.name / made.name


# What is shown


def test_the_first_view_has_the_text_on_which_models_disagree_most_and_none_of_their_scores(report: Path) -> None:
    seat = Sitting(report)
    first = seat.ask("start")
    assert first["facts"]["oracles"] == ["flash", "pro", "haiku", "baseline"]
    assert [each["name"] for each in first["facts"]["dimensions"]] == [*DIMENSIONS]
    assert first["facts"]["dimensions"][0]["rubric"].startswith("People act and decide.")
    assert (first["place"], first["of"], first["done"], first["models"]) == (1, 24, 0, None)
    assert first["text"]["text"] == notice(int(first["id"][-3:]))["content"]
    apart = {}
    for name in seat.desk.compared.ids:
        said = [seat.desk.compared.analyses[oracle][name].scores for oracle in [*seat.desk.compared.analyses][:3]]
        apart[name] = sum(max(s[d] for s in said) - min(s[d] for s in said) for d in DIMENSIONS)
    assert apart[first["id"]] == max(apart.values())
    assert [apart[name] for name in seat.desk.orders["disagreement"]] == sorted(apart.values(), reverse=True)


def test_nothing_that_is_sent_before_the_own_scores_says_what_models_think(report: Path) -> None:
    seat = Sitting(report)
    sent = [seat.ask("start")]
    name = sent[0]["id"]
    for field in DIMENSIONS:
        sent.append(seat.ask("score", id=name, field=field, value=9))
    quoted = seat.desk.compared.analyses[next(iter(seat.desk.compared.analyses))][name]
    assert quoted.evidence
    assert quoted.reasoning
    assert quoted.reasoning not in json.dumps(sent)
    assert all(each["models"] is None for each in sent)
    last = seat.ask("score", id=name, field="content_type", value="other")
    assert last["models"][0]["reasoning"] == quoted.reasoning
    assert last["models"][0]["evidence"] == quoted.evidence
    assert last["models"][2]["evidence"] == {}, "a model that quotes nothing"


def test_scores_that_were_given_with_the_others_in_view_are_marked(report: Path) -> None:
    seat = Sitting(report)
    blind, ahead, changed = seat.desk.orders["disagreement"][:3]
    seat.score_text(blind)
    seat.ask("record", to="next")
    seat.ask("choose", ahead=True)
    seat.score_text(ahead)
    seat.ask("choose", ahead=False)
    seat.ask("record", to="next")
    seat.score_text(changed)
    seat.ask("score", id=changed, field="wonder", value=8)
    lines = [json.loads(line)["uplifting_analysis"] for line in seat.person.labels.read_text().splitlines()]
    seen = {line["provenance"]["models_seen"] for line in lines}
    assert seen == {True, False}
    assert [seat.person.given(name).seen for name in (blind, ahead, changed)] == [False, True, True]


def test_a_model_without_a_score_says_why(report: Path) -> None:
    told = json.loads(report.with_suffix(".json").read_text())
    name = Sitting(report).ask("start")["id"]
    labels, fewer = Path(told["oracles"][0].removeprefix("file:")), report.with_name("flash.jsonl")
    fewer.write_text("".join(line for line in labels.read_text().splitlines(keepends=True) if f'"{name}"' not in line))
    told["oracles"][0] = f"file:{fewer}"
    told["failed"] = {f"file:{fewer}": {name: "blocked: the provider's filter"}}
    report.with_suffix(".json").write_text(json.dumps(told))
    seat = Sitting(report, "analyst-b")
    seat.desk.name = name
    flash, pro = seat.ask("choose", ahead=True)["models"][:2]
    assert (flash["name"], flash["failed"], flash["overall"]) == ("flash", "blocked: the provider's filter", None)
    assert "scores" not in flash
    assert pro["failed"] is None


# Going on


def test_enter_goes_to_what_is_missing_and_then_to_the_next_text(report: Path) -> None:
    seat = Sitting(report)
    name = seat.ask("start")["id"]
    assert seat.ask("record", to="next") == {"missing": [*DIMENSIONS, "content_type"]}
    seat.score_text(name)
    after = seat.ask("record", to="next")
    assert (after["id"] != name, after["place"], after["done"]) == (True, 2, 1)
    assert seat.ask("record", to="before")["id"] == name
    assert seat.ask("record", to="after")["id"] == after["id"]
    for each in seat.desk.compared.ids:
        seat.score_text(each)
    assert seat.ask("record", to="next")["finished"] is True


def test_whoever_comes_back_goes_on_and_a_second_window_is_no_stranger(report: Path) -> None:
    seat, other = Sitting(report), Sitting(report)
    name = seat.ask("start")["id"]
    seat.ask("score", id=name, field="agency", value=3)
    other.ask("score", id=name, field="progress", value=4)
    assert seat.ask("record")["mine"]["scores"] == {"agency": 3, "progress": 4}
    seat.score_text(name)
    back = Sitting(report)
    assert back.ask("start")["id"] != name
    assert back.ask("record")["done"] == 1


def test_a_line_torn_by_a_power_cut_costs_one_score(report: Path) -> None:
    seat = Sitting(report)
    name = seat.ask("start")["id"]
    for field, value in {"agency": 3, "progress": 4}.items():
        seat.ask("score", id=name, field=field, value=value)
    journal = seat.person.journal.path
    journal.write_bytes(journal.read_bytes()[:-9])
    again = Sitting(report)
    assert again.ask("start")["mine"]["scores"] == {"agency": 3}
    again.ask("score", id=name, field="progress", value=4)
    assert [entry["value"] for _, entry in entries(journal)] == [3, 4]


def test_views_that_did_not_ask_are_told(report: Path) -> None:
    seat = Sitting(report)
    name = seat.ask("start", view="one")["id"]
    seat.ask("score", id=name, field="agency", value=3, view="one")
    seat.ask("record", view="one")
    seat.ask("record", to="after", view="one")
    assert seat.told == [("changed", {"view": "one"})] * 2


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([*DIMENSIONS, "content_type"]), st.integers(-1, 11)), max_size=40
    )
)
def test_what_is_kept_is_what_was_last_given(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    folder = tmp_path_factory.mktemp("steps")
    texts = {f"a-{number}": {"id": f"a-{number}", "content": "A well."} for number in range(3)}
    person, wanted = PersonScores(folder, "analyst-a", PACKAGE, texts), {}
    for number, field, value in steps:
        name = f"a-{number}"
        given_value = None if value == -1 else "other" if field == "content_type" else value
        if given_value == 11:
            with pytest.raises(UsageError):
                person.put(name, field, given_value)
            continue
        person.put(name, field, given_value)
        wanted[name, field] = given_value
    again = PersonScores(folder, "analyst-a", PACKAGE, texts)
    for (name, field), value in wanted.items():
        said = again.given(name)
        assert (said.content_type if field == "content_type" else said.scores.get(field)) == value
    whole = [
        name for name in texts if all(wanted.get((name, field)) is not None for field in (*DIMENSIONS, "content_type"))
    ]
    assert [*again.analyses()] == whole
    assert ([*read_people(again.labels, PACKAGE.config)] if again.labels.exists() else []) == whole


# Figures


def test_the_figures_name_the_texts_on_which_they_rest(report: Path) -> None:
    seat = Sitting(report)
    for name in seat.desk.orders["random"][:11]:
        seat.score_text(name, int(name[-1]) % 10)
    seat.score_text(seat.desk.orders["random"][15])
    assert seat.ask("agreement") == {"number": 1}
    body = dict(seat.told)["agreement"]
    assert body["number"] == 1
    assert body["told"] == [
        "The first 11 texts of the random order, all scored by analyst-a: they speak for the whole sample."
    ]
    assert [option[0] for option in body["on"]["options"]] == ["random", "scored"]
    assert {row[1] for row in body["table"]["rows"]} == {"11"}
    seat.ask("agreement", on="scored", close="baseline")
    body = seat.told[-1][1]
    assert "1 of them were chosen otherwise than at random" in body["told"][0]
    assert {row[1] for row in body["table"]["rows"]} == {"12"}
    assert "Overall score of baseline less that of analyst-a" in body["figures"][2]["caption"]


def test_of_figures_that_were_asked_for_in_a_row_only_the_last_are_computed(report: Path) -> None:
    seat, waiting = Sitting(report), []
    seat.session._start = waiting.append
    assert [seat.ask("agreement")["number"] for _ in range(3)] == [1, 2, 3]
    for work in waiting:
        work()
    assert [body["number"] for kind, body in seat.told if kind == "agreement"] == [3]


def test_figures_that_fail_say_so_on_the_screen(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such array")

    monkeypatch.setattr("ocr_sprint.panels.calibration.agreement_view", fail)
    seat = Sitting(report)
    seat.ask("agreement")
    assert seat.told[-1][1] == {"number": 1, "error": "No figures: ValueError: no such array"}


# What is wrong


@pytest.mark.parametrize(
    ("kind", "body", "complaint"),
    [
        pytest.param("score", {"field": "agency", "value": 11}, "agency: 11 is off the scale 0-10", id="off the scale"),
        pytest.param("score", {"field": "agency", "value": "many"}, "agency: 'many' is not a number", id="text"),
        pytest.param("score", {"field": "agency", "value": True}, "agency: True is not a number", id="truth"),
        pytest.param("score", {"field": "taste", "value": 1}, "'taste' is no dimension", id="dimension"),
        pytest.param("score", {"field": "content_type", "value": "poem"}, "content_type: 'poem' is none", id="type"),
        pytest.param("score", {"id": "x", "field": "agency", "value": 1}, "'x' is no text of this sample", id="id"),
        pytest.param("choose", {"order": "length"}, "'length' is no order", id="order"),
        pytest.param("erase", {}, "'erase' is nothing that this panel knows", id="kind"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(report: Path, kind: str, body: dict, complaint: str) -> None:
    seat = Sitting(report)
    name = seat.ask("start")["id"]
    answered, _ = reply(seat.session.answer, {"id": "v-1", "kind": kind, "body": {"id": name, **body}})
    assert answered["error"].startswith(complaint)
    assert not seat.person.journal.path.exists()


def test_a_panel_over_what_is_no_finished_calibration_says_what_to_do(report: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: cannot be read .*; run calibrate_oracle to its end"):
        calibration_panel(report.with_name("none.md"), name="analyst-a")
    with pytest.raises(UsageError, match=r"'Ibu Sari' is no name to score under; take letters, digits"):
        calibration_panel(report, name="Ibu Sari")
    told = json.loads(report.with_suffix(".json").read_text())
    for change, complaint in {
        ("prompt_sha256", "0"): r"were asked about uplifting/v1 with another prompt; run calibrate_oracle again",
        ("plan_sha256", "0"): r"plan.jsonl: is not the sample of .*gazette.json; run calibrate_oracle again",
    }.items():
        report.with_suffix(".json").write_text(json.dumps({**told, change[0]: change[1]}))
        with pytest.raises(DataError, match=complaint):
            calibration_panel(report, name="analyst-a")
    older = {name: value for name, value in told.items() if name != "asked"}
    report.with_suffix(".json").write_text(json.dumps(older))
    with pytest.raises(UserError, match=r"does not say how the oracles were asked; run its calibrate_oracle command"):
        calibration_panel(report, name="analyst-a")


def test_another_scale_is_typed_and_not_keyed(report: Path) -> None:
    seat = Sitting(report)
    assert facts_of(seat.desk.compared, seat.person)["keys"] is True
    for scale in (Scale(maximum=100), Scale(integers=False), Scale(minimum=-5, maximum=5)):
        config = seat.desk.compared.package.config.model_copy(update={"scale": scale})
        package = seat.desk.compared.package.model_copy(update={"config": config})
        object.__setattr__(seat.desk.compared, "package", package)
        assert facts_of(seat.desk.compared, seat.person)["keys"] is False


def test_the_program_of_the_screen_is_whole_and_asks_nobody_else(tmp_path: Path) -> None:
    text = program("calibration")
    (tmp_path / "screen.mjs").write_text(text)
    subprocess.run(["node", "--check", str(tmp_path / "screen.mjs")], check=True)
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML\s*=", text) == []


# End to end


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MockServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCR_SPRINT_PRICES", raising=False)
    with MockServer() as server:
        yield server


def test_from_the_models_to_the_panel_to_a_report_that_takes_the_person_as_reference(
    provider: MockServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("raw.jsonl").open("w") as raw:
        for number in range(40):
            raw.write(json.dumps(notice(number)) + "\n")
    words = [
        "--filter",
        str(FILTER),
        "--source",
        "raw.jsonl",
        "--models",
        "server:small,server:large",
        "--sample-size",
        "30",
    ]
    words += [
        "--base-url",
        provider.v1,
        "--replicates",
        "200",
        "--max-output-tokens",
        "300",
        "--output",
        "reports/one.md",
    ]
    assert main(words) == 0
    answered = provider.mock.seen["answered"]
    assert answered == 60
    report = Path("reports/one.md")
    before = json.loads(report.with_suffix(".json").read_text())
    assert before["reference"].startswith("server:")
    seat = Sitting(report)
    for number, name in enumerate(seat.desk.orders["random"][:12]):
        seat.score_text(name, number % 11)
    seat.ask("agreement")
    command = seat.told[-1][1]["command"]
    Path("raw.jsonl").unlink()
    line = [sys.executable, "-m", "ocr_sprint.tools.calibrate_oracle", *shlex.split(command)[2:]]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert provider.mock.seen["answered"] == answered, "nobody is asked again"
    told = json.loads(report.with_suffix(".json").read_text())
    mine = "file:reports/one/people/analyst-a.jsonl"
    assert told["reference"] == mine
    assert told["oracles"] == [mine, "server:small", "server:large", "baseline"]
    assert (told["records"], told["plan_sha256"]) == (30, before["plan_sha256"])
    assert [pair["n"] for pair in told["pairs"] if pair["one"] == mine] == [12, 12, 12]
    live = {row[0]: row[2] for row in seat.told[-1][1]["table"]["rows"]}
    for candidate in told["candidates"]:
        assert live[candidate["oracle"].split(":")[-1]].startswith(f"{candidate['alpha']['overall']['value']:.2f}")
    text = report.read_text(encoding="utf-8")
    assert f"held against {mine}" in text
    again = Sitting(report)
    assert [*again.desk.compared.analyses] == ["server:small", "server:large", "baseline"], "not beside oneself"
    other = Sitting(report, "analyst-b")
    assert next(iter(other.desk.compared.analyses)) == mine, "another person's scores are an oracle like any other"
    words[5] = f"server:small,server:large,{mine}"
    assert main([*words, "--reference", "server:large"]) == 0
    told = json.loads(report.with_suffix(".json").read_text())
    assert (told["reference"], mine in [each["oracle"] for each in told["candidates"]]) == ("server:large", True)
    assert provider.mock.seen["answered"] == answered
    capsys.readouterr()
