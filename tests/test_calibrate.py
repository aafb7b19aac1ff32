"""Calibration end to end: providers on loopback, people, kills, budgets, and everything that can be wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llm_mock import MockServer

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.llm_prices import LISTED
from ocr_sprint.core.llm_protocol import Fatal, Request
from ocr_sprint.ground_truth.agreement_intervals import Resampling
from ocr_sprint.ground_truth.calibrate import Calibrated, calibrate
from ocr_sprint.ground_truth.calibration_order import Order
from ocr_sprint.ground_truth.calibration_questions import Stopped
from ocr_sprint.ground_truth.calibration_records import read_compared
from ocr_sprint.ground_truth.calibration_report import write_calibration
from ocr_sprint.ground_truth.filters import load_filter
from ocr_sprint.ground_truth.label_journal import entries
from ocr_sprint.ground_truth.label_run import Terms
from ocr_sprint.ground_truth.labelling_costs import Tokens
from ocr_sprint.ground_truth.ratings import OVERALL
from ocr_sprint.tools.calibrate_oracle import main

FILTER = Path("filters/uplifting/v1")
DIMENSIONS = tuple(load_filter(FILTER).config.dimensions)
Serve = Callable[..., MockServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    opened = []

    def start(**settings: Any) -> MockServer:
        server = MockServer(**settings).__enter__()
        opened.append(server)
        return server

    yield start
    for server in opened:
        server.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEMINI_API_KEY", "fictitious-key")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OCR_SPRINT_PRICES"):
        monkeypatch.delenv(name, raising=False)


def truth(number: int) -> np.ndarray:
    "What text `number` deserves, on each dimension."
    random = np.random.default_rng(number)
    return np.clip(random.normal(5, 2.5) + random.normal(0, 1.2, len(DIMENSIONS)), 0, 10)


def corpus(count: int = 60, name: str = "raw.jsonl") -> str:
    with Path(name).open("w", encoding="utf-8") as out:
        for n in range(count):
            row = {"id": f"a-{n:03}", "content": f"Well number {n} of the village.", "language": ("id", "en")[n % 2]}
            out.write(json.dumps(row) + "\n")
    return name


def labels(name: str, numbers: range, bias: float = 0.0) -> str:
    with Path(name).open("w", encoding="utf-8") as out:
        for n in numbers:
            scores = np.clip(truth(n) + bias, 0, 10).round().astype(int).tolist()
            row = {"id": f"a-{n:03}", "content_type": "other", **dict(zip(DIMENSIONS, scores, strict=True))}
            out.write(json.dumps(row) + "\n")
    return f"file:{name}"


def model(bias: float = 0.0, noise: float = 0.5) -> Callable[[str, dict[str, Any]], str]:
    "A provider's answers: the truth, and somewhat more."

    def answer(prompt: str, _: dict[str, Any]) -> str:
        number = int(re.findall(r"Well number (\d+)", prompt)[-1])
        found = truth(number) + bias + np.random.default_rng(number + 5000).normal(0, noise, len(DIMENSIONS))
        scores = np.clip(found, 0, 10).round().astype(int).tolist()
        return json.dumps({"reasoning": "", "content_type": "other", **dict(zip(DIMENSIONS, scores, strict=True))})

    return answer


def order(*models: str, server: MockServer | None = None, **changes: Any) -> Order:
    base = Order(FILTER, ["raw.jsonl"], models, Path("reports/one"), size=50, terms=Terms(8, seed=1))
    return replace(base, base_url=server.v1 if server else None, **changes)


def run(wanted: Order) -> Calibrated:
    return asyncio.run(calibrate(wanted, resampling=Resampling(200)))


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ocr_sprint.tools.calibrate_oracle", *words]
    return subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def words(models: str, *more: str) -> list[str]:
    return ["--filter", str(FILTER), "--source", "raw.jsonl", "--models", models, "--sample-size", "50", *more]


# What is found


def test_a_biased_model_is_recognised_mapped_and_recommended(serve: Serve) -> None:
    corpus()
    server = serve(answer=model(bias=1.8))
    done = run(order("server:gemini-2.5-flash", labels("people.jsonl", range(60)), server=server))
    [flash, baseline] = done.calibration.candidates
    assert (flash.oracle, baseline.oracle) == ("server:gemini-2.5-flash", "baseline")
    assert done.calibration.reference == "file:people.jsonl"
    agency = done.calibration.pairs[0].measures["agency"].statistics
    assert agency["pearson"].value is not None
    assert agency["pearson"].value > 0.9
    assert agency["bias"].value == pytest.approx(1.6, abs=0.4)
    assert flash.kind is not None
    assert (flash.mapped[OVERALL].low or 0) > (flash.alpha[OVERALL].value or 1)
    assert done.recommendation.oracle == "server:gemini-2.5-flash"
    assert done.recommendation.kind == flash.kind
    assert f"through a {flash.kind} map" in done.recommendation.reason
    assert set(flash.maps) == set(DIMENSIONS)


def test_without_people_the_dearest_model_is_the_reference_and_the_report_says_so(serve: Serve) -> None:
    corpus()
    server = serve(answer=model())
    done = run(order("server:gemini-2.5-flash", "server:gemini-2.5-pro", server=server))
    assert done.calibration.reference == "server:gemini-2.5-pro"
    assert done.recommendation.oracle == "server:gemini-2.5-flash"
    write_calibration(done, Path("reports/one.md"))
    first = Path("reports/one.md").read_text(encoding="utf-8").split("## Agreement")[0]
    assert "No labels of people: agreement is with **server:gemini-2.5-pro**" in first
    assert "instead of $" in first, "what the reference would cost"
    assert "ocr_sprint batch_labeler --filter filters/uplifting/v1" in first
    assert "--llm server:gemini-2.5-flash" in first


def test_repeats_say_how_well_a_model_agrees_with_itself(serve: Serve) -> None:
    corpus()
    random = np.random.default_rng(3)

    def moody(prompt: str, schema: dict[str, Any]) -> str:
        told = json.loads(model()(prompt, schema))
        for name in DIMENSIONS:
            told[name] = int(np.clip(told[name] + random.integers(-1, 2), 0, 10))
        return json.dumps(told)

    server = serve(answer=moody)
    done = run(order("server:tiny", repeats=3, server=server))
    assert server.mock.seen["answered"] == 150
    [repeated] = done.calibration.repeats
    assert (repeated.oracle, repeated.repeats, repeated.n) == ("server:tiny", 3, 50)
    # Whole numbers from -1 to 1 have a variance of 2/3.
    assert repeated.deviation["agency"].value == pytest.approx((2 / 3) ** 0.5, abs=0.15)
    assert 0.5 < (repeated.alpha["agency"].low or 0) < (repeated.alpha["agency"].high or 2) < 1


def test_failures_of_one_oracle_are_listed_and_shift_nobody(serve: Serve) -> None:
    corpus()
    server = serve(answer=model(), finish=lambda prompt: "blocked" if re.search("number [135] ", prompt) else "stop")
    done = run(order("server:tiny", labels("people.jsonl", range(2, 60)), server=server, size=60))
    assert done.calibration.records == 58
    pair = done.calibration.pairs[0]
    assert sorted(pair.only_one) == ["a-003", "a-005"]
    assert pair.n == 56
    assert done.calibration.failed["server:tiny"]["a-003"].startswith("blocked")
    assert (pair.measures["agency"].statistics["pearson"].value or 0) > 0.9
    write_calibration(done, Path("reports/one.html"))
    assert "server:tiny has no score for 2 of 58 texts" in Path("reports/one.md").read_text(encoding="utf-8")


def test_two_people_with_gaps_are_compared_where_they_overlap() -> None:
    corpus()
    one, two = labels("one.jsonl", range(40)), labels("two.jsonl", range(20, 60), bias=0.4)
    done = run(order(one, two, size=60))
    pair = done.calibration.pairs[0]
    assert (done.calibration.records, pair.n) == (60, 20)
    assert (len(pair.only_one), len(pair.only_other)) == (20, 20)
    assert done.calibration.everybody["agency"].value is not None


def test_a_group_that_is_treated_otherwise_is_found(serve: Serve) -> None:
    corpus()

    def hard_on_indonesian(prompt: str, schema: dict[str, Any]) -> str:
        number = int(re.findall(r"Well number (\d+)", prompt)[-1])
        return model(bias=0.0 if number % 2 else -2.0)(prompt, schema)

    server = serve(answer=hard_on_indonesian)
    done = run(order("server:tiny", labels("people.jsonl", range(60)), server=server))
    groups = {(each.field, each.value): each for each in done.calibration.subgroups["server:tiny"]}
    assert groups["language", "id"].differs
    assert (groups["language", "id"].bias.high or 0) < (groups["language", "en"].bias.low or -9)


# What it costs


def test_a_rerun_costs_nothing_and_says_the_same(serve: Serve) -> None:
    corpus()
    server = serve(answer=model())
    wanted = order("server:tiny", labels("people.jsonl", range(60)), server=server)
    paths = write_calibration(run(wanted), Path("reports/one.md"))
    before = {suffix: path.read_bytes() for suffix, path in paths.items()}
    answered = server.mock.seen["answered"]
    Path("raw.jsonl").unlink()
    write_calibration(run(wanted), Path("reports/one.md"))
    assert server.mock.seen["answered"] == answered == 50
    assert {suffix: path.read_bytes() for suffix, path in paths.items()} == before


def test_another_model_is_asked_about_the_same_texts_though_the_source_grew(serve: Serve) -> None:
    corpus(60)
    server = serve(answer=model())
    first = run(order("server:tiny", "server:small", server=server))
    corpus(200)
    second = run(order("server:tiny", "server:small", "server:large", server=server))
    assert second.ready.plan.digest == first.ready.plan.digest
    assert server.mock.seen["answered"] == 150


def test_a_kill_loses_nothing_and_asks_nothing_twice(serve: Serve) -> None:
    corpus(60)
    labels("people.jsonl", range(60))
    server = serve(answer=model(), latency=0.05)
    command = [sys.executable, "-m", "ocr_sprint.tools.calibrate_oracle", *words("server:tiny,file:people.jsonl")]
    command += ["--base-url", server.v1, "--concurrency", "4", "--replicates", "100", "--output", "reports/one.md"]
    for _ in range(2):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            before = server.mock.seen["answered"]
            while process.poll() is None and server.mock.seen["answered"] < before + 16:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    journal = Path("reports/one/server-tiny/uplifting/journal.jsonl")
    keys = [entry["key"] for _, entry in entries(journal) if entry["kind"] == "answer"]
    assert len(keys) == len(set(keys)) == 50
    assert server.mock.seen["answered"] <= 50 + 2 * 4, "at most those that were under way"


def test_the_cap_is_over_all_models_and_the_command_goes_on(serve: Serve) -> None:
    corpus()
    server = serve(answer=model())
    wanted = order("server:gemini-2.5-flash", "server:gemini-2.5-pro", server=server)
    with pytest.raises(Stopped) as stopped:
        run(replace(wanted, max_cost=0.1))
    assert stopped.value.ending == "budget"
    bill = sum(
        float(str(entry.get("cost", 0)))
        for path in Path("reports/one").glob("*/uplifting/journal.jsonl")
        for _, entry in entries(path)
    )
    assert 0 < bill <= 0.1
    assert run(wanted).recommendation.oracle == "server:gemini-2.5-flash"
    assert server.mock.seen["answered"] == 100


def test_a_quota_of_the_day_prints_the_command_to_go_on_with(serve: Serve) -> None:
    corpus()
    server = serve(answer=model(), requests_a_day=20)
    done = call(*words("server:tiny,server:small"), "--base-url", server.v1, "--concurrency", "4")
    assert done.returncode == 130
    assert "server:tiny: the provider's quota of the day is used up" in done.stderr
    assert "go on with:\n  python -m ocr_sprint.tools.calibrate_oracle --filter filters/uplifting/v1" in done.stderr
    assert not Path("reports/uplifting_calibration.md").exists()


def test_costs_are_those_of_the_tokens_that_were_counted(serve: Serve) -> None:
    corpus()
    server = serve(answer=model())
    done = run(order("server:gemini-2.5-flash", "server:gemini-2.5-pro", server=server))
    price = LISTED["gemini-2.5-flash"]
    cost = done.costs["server:gemini-2.5-flash"]
    assert isinstance(cost.tokens, Tokens)
    assert cost.whole is not None
    assert cost.whole.expected == pytest.approx(cost.tokens.cost(price, 20_000), rel=0.01)
    assert cost.spent == pytest.approx(cost.tokens.cost(price, 50), rel=1e-3)
    assert cost.batch == pytest.approx(cost.whole.expected / 2)
    assert done.costs["baseline"].spent == 0


# The command


def test_the_command_of_the_requirements(serve: Serve) -> None:
    Path("datasets/raw").mkdir(parents=True)
    corpus(200, "datasets/raw/master_dataset_01.jsonl")
    server = serve(answer=model(bias=0.2))
    given = ["--filter", "filters/uplifting/v1", "--source", "datasets/raw/master_dataset*.jsonl"]
    given += ["--models", "gemini-flash,gemini-pro", "--sample-size", "200", "--seed", "42"]
    given += ["--output", "reports/uplifting_calibration_validation.md"]
    done = call(*given, "--base-url", server.url, "--replicates", "200")
    assert done.returncode == 0, done.stderr
    assert "Take gemini-flash" in done.stderr
    assert done.stdout == ""
    report = Path("reports/uplifting_calibration_validation.md").read_text(encoding="utf-8")
    assert report.startswith("# Oracle calibration: uplifting/v1\n\nTake **gemini-flash**")
    for heading in ("Which oracle", "Agreement", "Bias", "Tiers", "Equating", "Distributions", "Cost", "Records"):
        assert f"\n## {heading}" in report
    page = Path("reports/uplifting_calibration_validation.html").read_text(encoding="utf-8")
    assert page.count('class="plot"') >= 7
    assert not re.search(r'(src|href)="https?:', page.partition("<script>")[0])
    told = json.loads(Path("reports/uplifting_calibration_validation.json").read_text(encoding="utf-8"))
    assert told["recommendation"]["oracle"] == "gemini-flash"
    assert len(told["pairs"]) == 3
    assert told["pairs"][0]["measures"]["wonder"]["statistics"]["alpha_ordinal"]["low"] is not None


def test_json_strict_and_the_usual_place(capsys: pytest.CaptureFixture[str]) -> None:
    corpus()
    named = labels("people.jsonl", range(60))
    code = main([*words(f"baseline,{named}"), "--replicates", "100", "--json", "--strict"])
    captured = capsys.readouterr()
    assert code == 3
    assert captured.err.endswith("ocr_sprint calibrate_oracle: no oracle will do yet\n")
    assert json.loads(captured.out)["recommendation"]["oracle"] is None
    assert Path("reports/uplifting_calibration.md").exists()


def test_an_estimate_needs_no_key_and_sends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus()
    monkeypatch.delenv("GEMINI_API_KEY")
    assert main([*words("gemini-flash,claude"), "--repeats", "2", "--estimate"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in out] == ["gemini-flash", "claude", "baseline", "together"]
    assert "100 records" in out[0]


def wrong() -> Iterator[tuple[str, list[str], int, str]]:
    people = "baseline,file:people.jsonl"
    yield "unknown model", words("gemini-ultra,baseline"), 2, "'gemini-ultra' is no model; give one of"
    yield "unknown provider", words("aws:nova,baseline"), 2, "'aws:nova' is no model"
    yield "no key", words("openai:gpt-4o-mini,gemini-pro"), 2, "no key; set OPENAI_API_KEY, or store it with: keyring"
    yield "no base url", words("server:tiny,baseline"), 2, "server:tiny: needs --base-url"
    yield "base url", words("server:tiny,baseline", "--base-url", "localhost"), 2, "has no scheme; write http://"
    yield "one oracle", words("gemini-pro"), 2, "gemini-pro alone agrees with nobody; name another"
    yield "twice", words("gemini-pro,gemini-pro"), 2, "gemini-pro is named twice"
    yield "empty name", words("gemini-pro,"), 2, "--models 'gemini-pro,' has an empty name"
    yield "no match", [*words(people)[:3], "rows*.jsonl", *words(people)[4:]], 2, "rows*.jsonl: matches no file"
    yield (
        "no file",
        [*words(people)[:3], "row.jsonl", *words(people)[4:]],
        2,
        "row.jsonl: there is no such file; name JSON",
    )
    yield "folder", [*words(people)[:3], "broken", *words(people)[4:]], 2, "broken: is a folder; name the files in it"
    yield (
        "table",
        [*words(people)[:3], "t.csv", *words("baseline,server:a")[4:]],
        1,
        "; name a file of JSON lines in UTF-8",
    )
    yield "empty", [*words(people)[:3], "empty.jsonl", *words(people)[4:]], 1, "empty.jsonl: holds no article to label"
    yield "filter", ["--filter", "filters/none/v1", *words(people)[2:]], 2, "filters/none/v1: no such filter folder"
    yield "config", ["--filter", "broken/v1", *words(people)[2:]], 1, "broken/v1/config.yaml: dimensions"
    yield "sample", [*words(people)[:-1], "9"], 2, "9 records are too few; give at least 10"
    yield "few", [*words(people)[:3], "few.jsonl", *words("baseline,server:a")[4:]], 1, "the source has 3 texts; an int"
    yield "malformed", [*words(people)[:3], "bad.jsonl", *words("baseline,server:a")[4:]], 1, "bad.jsonl, line 2: "
    yield "no id", [*words(people)[:3], "noid.jsonl", *words("baseline,server:a")[4:]], 1, "noid.jsonl, line 1: no id"
    yield "repeats", words(people, "--repeats", "0"), 2, "--repeats 0 is too few"
    yield "reference", words(people, "--reference", "claude"), 2, "--reference claude is not compared; give one of"
    yield "mark", words(people, "--at-least", "67"), 2, "--at-least 67 is no mark for alpha"
    yield "replicates", words(people, "--replicates", "5"), 2, "--replicates 5 is too few; give at least 100"
    yield "concurrency", words(people, "--concurrency", "0"), 2, "--concurrency 0 is too few; give at least 1"
    yield "ending", words(people, "--output", "report.pdf"), 2, "report.pdf: a calibration ends in .md, .html, .json"
    yield "place", words(people, "--output", "raw.jsonl/one.md"), 2, "cannot be written"
    yield "people missing", words("baseline,file:nobody.jsonl"), 1, "nobody.jsonl: cannot be read"
    yield "people's ids", words("baseline,file:others.jsonl"), 1, "file:others.jsonl: no id in it is one of raw.jsonl"
    yield "few of people", words("baseline,file:some.jsonl"), 1, "has 4 texts that people have labelled; an interval"
    yield "off the scale", words("baseline,file:eleven.jsonl"), 1, "eleven.jsonl, line 2: agency: 11 is off the scale"
    yield "dimension", words("baseline,file:partly.jsonl"), 1, "partly.jsonl, line 1: progress is missing; mend the"
    yield "labelled twice", words("baseline,file:twice.jsonl"), 1, "twice.jsonl, line 2: the id 'a-001' occurs twice"
    yield "prefilter", words(people, "--allow-prefilter"), 2, "has no prefilter.py; leave out --allow-prefilter"
    yield "no price", words("openai:unheard-of,baseline", "--max-cost", "5"), 2, "has no known price, so no cost can"
    yield "no money", words("gemini-pro,baseline", "--max-cost", "0"), 2, "a budget of $0 allows nothing"
    yield "prices", words(people, "--prices", "none.yaml"), 1, "none.yaml: cannot be read"


@pytest.mark.parametrize(("given", "code", "complaint"), [pytest.param(*rest, id=name) for name, *rest in wrong()])
def test_what_is_wrong_is_said_in_one_line_before_anybody_is_asked(
    given: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus()
    labels("people.jsonl", range(60))
    corpus(3, "few.jsonl")
    Path("bad.jsonl").write_text('{"id": 1, "content": "A well."}\n{"id": 2, "content": \n', encoding="utf-8")
    Path("t.csv").write_text("id,content\n1,A well.\n", encoding="utf-8")
    Path("empty.jsonl").touch()
    Path("noid.jsonl").write_text('{"content": "A well."}\n', encoding="utf-8")
    labels("x.jsonl", range(20))
    Path("others.jsonl").write_text(Path("x.jsonl").read_text(encoding="utf-8").replace("a-", "b-"), encoding="utf-8")
    labels("some.jsonl", range(4))
    five = dict.fromkeys(DIMENSIONS, 5)
    lines = {"eleven": [{"id": "a-000", **five}, {"id": "a-001", **five, "agency": 11}]}
    lines |= {"partly": [{"id": "a-000", "agency": 5}], "twice": [{"id": "a-001", **five}] * 2}
    for name, rows in lines.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("broken/v1").mkdir(parents=True)
    Path("broken/v1/config.yaml").write_text("filter: {name: broken, version: 1}\n", encoding="utf-8")
    assert main(given) == code
    error = capsys.readouterr().err
    assert complaint in error.splitlines()[-1]
    assert "Traceback" not in error
    asked = [path for path in Path().rglob("journal.jsonl") if path.stat().st_size]
    assert asked == []


def test_a_refused_key_ends_it_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        model = "server:tiny"

        async def ask(self, _: Request) -> Fatal:
            return Fatal("HTTP 401: no such key", "run")

        async def close(self) -> None:
            pass

    corpus()
    monkeypatch.setattr("ocr_sprint.ground_truth.label.open_oracle", lambda *_, **__: Refusing())
    wanted = replace(order("server:tiny", "server:small"), base_url="http://127.0.0.1:9/v1")
    with pytest.raises(DataError, match="server:tiny: no request can work: HTTP 401: no such key"):
        run(wanted)


def test_another_prompt_is_another_question(serve: Serve) -> None:
    corpus()
    server = serve(answer=model())
    shutil.copytree(load_filter(FILTER).folder, FILTER)
    wanted = order("server:tiny", "server:small", server=server)
    first = run(wanted)
    prompt = FILTER / first.ready.package.prompt_file
    prompt.write_text("Score with care.\n" + prompt.read_text(encoding="utf-8"), encoding="utf-8")
    second = run(wanted)
    assert server.mock.seen["answered"] == 200
    assert second.ready.package.prompt_sha256 != first.ready.package.prompt_sha256
    config = FILTER / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("at_least: 7.0", "at_least: 6.0"), encoding="utf-8")
    third = run(wanted)
    assert server.mock.seen["answered"] == 200, "other tiers cost nothing"
    assert third.calibration.pairs[0].tiers.flips[0].threshold == 6.0


def test_bad_lines_and_the_prefilter_are_set_aside_when_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    corpus()
    with Path("raw.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"id": "torn", "content": \n')
    shutil.copytree(load_filter(FILTER).folder, FILTER)
    (FILTER / "prefilter.py").write_text(
        "class Filter:\n    def should_label(self, article):\n        return article['language'] == 'id', 'language'\n",
        encoding="utf-8",
    )
    named = labels("people.jsonl", range(60))
    given = words(f"baseline,{named}", "--skip-bad", "--allow-prefilter", "--replicates", "100")
    assert main(given) == 0
    told = json.loads(Path("reports/uplifting_calibration.json").read_text(encoding="utf-8"))
    assert told["records"] == 30, "every second one is in Indonesian"
    assert "the prefilter held back 30 (language: 30)" in capsys.readouterr().err
    [aside] = Path("reports/uplifting_calibration/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(aside)["line"] == 61


def test_where_nothing_varies_nothing_is_recommended() -> None:
    with (
        Path("raw.jsonl").open("w", encoding="utf-8") as out,
        Path("people.jsonl").open("w", encoding="utf-8") as people,
    ):
        for n in range(20):
            out.write(json.dumps({"id": f"a-{n:03}", "content": f"{n}"}) + "\n")
            people.write(json.dumps({"id": f"a-{n:03}", **dict.fromkeys(DIMENSIONS, 0)}) + "\n")
    done = run(order("file:people.jsonl", "baseline"))
    assert done.recommendation.oracle is None
    assert done.recommendation.verdicts[0].grade == "nothing varies"
    assert "All texts got the same score of baseline and people" in done.recommendation.reason
    write_calibration(done, Path("reports/one.md"))
    told = Path("reports/one.md").read_text(encoding="utf-8")
    assert "| nothing varies" in told
    assert "There is no alpha to draw: all texts got the same scores" in told
    assert "Figure: Krippendorff" not in told
    assert ".." not in told


def test_a_report_is_read_from_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus()
    shutil.copytree(load_filter(FILTER).folder, "mine/uplifting/v1")
    given = ["--filter", "mine/uplifting/v1", *words(f"baseline,{labels('people.jsonl', range(60))}")[2:]]
    assert main([*given, "--replicates", "100", "--output", "reports/one.md"]) == 0
    Path("notebooks/deep").mkdir(parents=True)
    monkeypatch.chdir("notebooks/deep")
    compared = read_compared(Path("../../reports/one.md"))
    assert set(compared.analyses) == {"baseline", "file:people.jsonl"}
    assert compared.package.folder == Path("../../mine/uplifting/v1").resolve()
    Path("../../people.jsonl").unlink()
    with pytest.raises(
        UsageError, match=r"^people.jsonl: these labels were compared, and there is no such file from .*deep"
    ):
        read_compared(Path("../../reports/one.md"))
