"""The labeller against a provider on loopback: chaos, quotas, budgets, kills, and labels that survive all of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llm_mock import MockServer

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.llm_limits import Limits
from ocr_sprint.core.llm_prices import LISTED
from ocr_sprint.core.llm_protocol import Parameters, Usage
from ocr_sprint.ground_truth.filters import load_filter
from ocr_sprint.ground_truth.label import Done, Order, label
from ocr_sprint.ground_truth.label_journal import Journal, entries, read_state
from ocr_sprint.ground_truth.label_plan import Shard, journals
from ocr_sprint.ground_truth.label_reply import Analysis, read_reply
from ocr_sprint.ground_truth.label_run import Terms

FILTER = Path("filters/uplifting/v1")
CONFIG = load_filter(FILTER).config
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
def fictitious_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "fictitious-key")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    "A thousandth of the jitter: what is tested is the count of calls, not the patience."
    from ocr_sprint.ground_truth import label_decide

    original = label_decide.backoff
    monkeypatch.setattr(label_decide, "backoff", lambda *words: original(*words) / 1000)


def corpus(folder: Path, count: int, start: int = 0) -> str:
    path = folder / "raw.jsonl"
    with path.open("a", encoding="utf-8") as out:
        for n in range(start, start + count):
            row = {"id": f"a-{n:05d}", "title": f"Well {n}", "content": f"Forty families dug well {n} together."}
            out.write(json.dumps(row) + "\n")
    return str(path)


def order(folder: Path, source: str, server: MockServer | None = None, **changes: Any) -> Order:
    base = Order(FILTER, [source], folder / "labels", "server:gemini-2.5-flash", target=None, seed=42)
    return replace(base, base_url=server.v1 if server else None, **changes)


def run(wanted: Order, said: list[str] | None = None) -> Done:
    return asyncio.run(label(wanted, say=said.append if said is not None else lambda _: None))


def labels(wanted: Order) -> list[dict[str, Any]]:
    path = wanted.output_dir / "uplifting" / "labeled_articles.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(wanted: Order) -> list[str]:
    return [line["id"] for line in labels(wanted)]


@pytest.mark.parametrize(
    "llm", ["server:tiny", "openai:gpt-4o-mini", "claude-haiku", "gemini-flash", "google-genai:gemini-2.5-flash"]
)
def test_chaos_loses_nothing_and_repeats_only_what_failed(tmp_path: Path, serve: Serve, llm: str) -> None:
    server = serve(busy=0.2, fails=0.1, malformed=0.05, dropped=0.05)
    wanted = order(tmp_path, corpus(tmp_path, 120), server, llm=llm, terms=Terms(concurrency=32, seed=1))
    if llm.startswith(("claude", "gemini", "google")):
        wanted = replace(wanted, base_url=server.url)
    done = run(wanted)
    assert (done.ending, done.written.labelled, done.written.missing) == ("done", 120, 0)
    assert len(set(ids(wanted))) == 120
    seen = server.mock.seen
    # Each answer that arrived ended a record, so every repeated one is a malformed or a dropped one.
    assert seen["answered"] == 120 + seen["malformed"] + seen["dropped"]


def test_the_same_corpus_is_not_asked_about_twice(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    wanted = order(tmp_path, corpus(tmp_path, 60), server)
    first = run(wanted)
    again = run(wanted)
    assert (again.asked, server.mock.seen["answered"]) == (0, 60)
    assert again.written.sha256 == first.written.sha256
    corpus(tmp_path, 7, start=60)
    assert run(wanted).asked == 0, "the plan holds although the source grew"
    assert run(replace(wanted, refresh_plan=True)).asked == 7
    assert server.mock.seen["answered"] == 67


@pytest.mark.parametrize(
    "changes",
    [{"llm": "server:other"}, {"parameters": Parameters(temperature=0.5)}, {"with_schema": False}],
    ids=["model", "parameters", "schema"],
)
def test_what_decides_an_answer_is_asked_anew(tmp_path: Path, serve: Serve, changes: dict[str, Any]) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 10), serve())
    run(wanted)
    assert run(replace(wanted, **changes)).asked == 10
    assert run(wanted).asked == 0


def test_poisoned_records_go_to_quarantine_with_the_raw_reply_and_can_be_asked_again(
    tmp_path: Path, serve: Serve
) -> None:
    def answer(prompt: str, schema: dict[str, Any]) -> str:
        from llm_mock import scores

        return "I would rather not." if re.search(r"well 1[0-4] ", prompt) else json.dumps(scores(prompt, schema))

    server = serve(answer=answer, finish=lambda prompt: "blocked" if "well 20 " in prompt else "stop")
    wanted = order(tmp_path, corpus(tmp_path, 40), server)
    done = run(wanted)
    assert done.written.labelled == 34
    assert done.written.refused == {"unreadable": 5, "blocked": 1}
    aside = (tmp_path / "labels/uplifting/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["text"] for line in aside} == {"I would rather not.", ""}
    assert run(wanted).asked == 0
    server.mock.settings.answer = None
    again = run(replace(wanted, retry_quarantined=True))
    assert (again.asked, again.written.labelled, dict(again.written.refused)) == (6, 39, {"blocked": 1})


def test_a_truncated_reply_is_never_repaired(tmp_path: Path, serve: Serve) -> None:
    server = serve(finish=lambda prompt: "length" if "well 3 " in prompt else "stop")
    wanted = order(tmp_path, corpus(tmp_path, 8), server)
    done = run(wanted)
    assert (done.written.labelled, dict(done.written.refused)) == (7, {"truncated": 1})
    assert "a-00003" not in ids(wanted)


def test_no_minute_is_exceeded_and_nearly_all_of_it_used(tmp_path: Path, serve: Serve) -> None:
    # Any six seconds may hold a tenth of the minute's 600, and a minute's slack. bench/label.py takes whole minutes.
    server = serve(requests_a_window=66, window=6)
    wanted = order(tmp_path, corpus(tmp_path, 150), server, terms=Terms(64, Limits(requests=600)))
    started = time.monotonic()
    done = run(wanted)
    assert done.written.labelled == 150
    assert server.mock.seen["over_quota"] == 0
    assert 150 / (time.monotonic() - started) > 0.9 * 10


def test_a_limit_that_nobody_stated_is_learnt(tmp_path: Path, serve: Serve) -> None:
    server = serve(requests_a_window=40, window=2)
    wanted = order(tmp_path, corpus(tmp_path, 60), server, terms=Terms(32))
    assert run(wanted).written.labelled == 60
    assert server.mock.seen["answered"] == 60


def test_a_quota_of_the_day_pauses_and_the_next_day_goes_on(tmp_path: Path, serve: Serve) -> None:
    server = serve(requests_a_day=25)
    wanted = order(tmp_path, corpus(tmp_path, 40), server, terms=Terms(concurrency=4))
    done = run(wanted)
    assert (done.ending, done.written.labelled) == ("quota", 25)
    server.mock.settings.requests_a_day = 0
    assert run(wanted).written.labelled == 40
    assert server.mock.seen["answered"] == 40


@pytest.mark.parametrize("chaos", [{}, {"malformed": 0.1, "dropped": 0.1, "fails": 0.1}], ids=["calm", "chaos"])
def test_the_cap_holds_against_the_providers_bill(tmp_path: Path, serve: Serve, chaos: dict[str, float]) -> None:
    server = serve(**chaos)
    price = LISTED["gemini-2.5-flash"]
    source = corpus(tmp_path, 200)
    wanted = order(tmp_path, source, server, max_cost=0.05, parameters=Parameters(max_output_tokens=400))
    done = run(wanted)
    bill = price.cost(Usage(server.mock.tokens_in, server.mock.tokens_out))
    assert done.ending == "budget"
    assert bill <= 0.05
    assert 0 < done.written.labelled < 200
    if not chaos:
        assert done.spent == pytest.approx(bill)
        assert bill > 0.045, "little of the budget is left"
    assert run(wanted).ending == "budget"
    assert run(replace(wanted, max_cost=5.0)).written.labelled == 200


def test_the_forecast_is_within_five_per_cent_of_the_bill(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    said: list[str] = []
    wanted = order(tmp_path, corpus(tmp_path, 400), server, terms=Terms(concurrency=8), max_cost=50)
    run(wanted, said)
    bill = LISTED["gemini-2.5-flash"].cost(Usage(server.mock.tokens_in, server.mock.tokens_out))
    told = [re.search(r"\$([\d.]+) \(\$([\d.]+) to \$([\d.]+); measured on", line) for line in said]
    expected, low, high = (float(found) for found in next(found for found in told if found).groups())
    assert expected == pytest.approx(bill, rel=0.05, abs=0.006)
    assert low - 0.006 <= bill <= high + 0.006


def test_a_key_that_is_refused_stops_the_run_and_says_why(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    wanted = replace(order(tmp_path, corpus(tmp_path, 50), server), base_url=server.url + "/nowhere")
    done = run(wanted)
    assert (done.ending, done.detail) == ("fatal", "HTTP 404: 404: Not Found")


def test_a_server_that_is_not_there_does_not_eat_the_corpus(tmp_path: Path) -> None:
    source = corpus(tmp_path, 400)
    wanted = replace(order(tmp_path, source, None, terms=Terms(concurrency=8)), base_url="http://127.0.0.1:9/v1")
    done = run(wanted)
    assert (done.ending, done.written.missing) == ("unreachable", 400)


def test_shards_together_are_the_whole(tmp_path: Path, serve: Serve) -> None:
    server, source = serve(), corpus(tmp_path, 50)
    one = order(tmp_path, source, server, output_dir=tmp_path / "one")
    run(one)
    parts = order(tmp_path, source, server, output_dir=tmp_path / "parts")
    for number in (2, 4, 1, 3):
        done = run(replace(parts, shard=Shard(number, 4)))
    assert done.written.labelled == 50
    assert server.mock.seen["answered"] == 100
    assert ids(parts) == ids(one)
    state = read_state(journals(tmp_path / "parts/uplifting"))
    back = read_state(journals(tmp_path / "parts/uplifting")[::-1])
    assert [*state.answers] != [*back.answers]
    assert set(state.answers) == set(back.answers)


COMMAND = [sys.executable, "-m", "ocr_sprint.tools.batch_labeler", "--filter", str(FILTER)]


def start(tmp_path: Path, source: str, server: MockServer, *words: str) -> subprocess.Popen[str]:
    line = [*COMMAND, "--source", source, "--output-dir", str(tmp_path / "labels"), "--llm", "server:tiny"]
    line += ["--base-url", server.v1, "--random-sample", *words]
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)


def test_kills_at_random_points_lose_nothing_and_repeat_at_most_what_was_under_way(
    tmp_path: Path, serve: Serve
) -> None:
    "The campaign of a hundred kills is bench/label.py; here are a few of them."
    server = serve(latency=0.03)
    source = corpus(tmp_path, 500)
    chance, kills = random.Random(7), 5
    words = ("--concurrency", "8", "--target-count", "400")
    journal = tmp_path / "labels/uplifting/journal.jsonl"
    for kill in range(kills):
        process = start(tmp_path, source, server, *words)
        before = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None and (not journal.exists() or journal.stat().st_size <= before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        corpus(tmp_path, 5, start=1000 + 5 * kill)
    process = start(tmp_path, source, server, *words)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    written = (journal.parent / "labeled_articles.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line)["id"] for line in written]
    assert (len(found), len(set(found))) == (400, 400)
    answers = Counter(entry["key"] for _, entry in entries(journal) if entry["kind"] == "answer")
    assert max(answers.values()) == 1
    assert server.mock.seen["answered"] <= 400 + kills * 8


def test_control_c_drains_and_prints_the_command_to_go_on(tmp_path: Path, serve: Serve) -> None:
    server = serve(latency=0.2)
    source = corpus(tmp_path, 300)
    process = start(tmp_path, source, server, "--concurrency", "4")
    while server.mock.seen["answered"] < 8:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    command = said.strip().splitlines()[-1].split()
    assert "go on with:" in said
    assert command[:3] == ["python", "-m", "ocr_sprint.tools.batch_labeler"]
    labelled = len((tmp_path / "labels/uplifting/labeled_articles.jsonl").read_text(encoding="utf-8").splitlines())
    assert labelled == server.mock.seen["answered"], "what was under way was waited for"
    server.mock.settings.latency = 0
    done = subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert server.mock.seen["answered"] == 300


def test_two_runs_do_not_write_one_journal(tmp_path: Path, serve: Serve) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 5), serve())
    with (
        Journal(tmp_path / "labels/uplifting/journal.jsonl"),
        pytest.raises(UsageError, match="another run is writing"),
    ):
        run(wanted)


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_torn_line_is_cut_off_and_asked_again(tmp_path: Path, serve: Serve, cut: int) -> None:
    server = serve()
    wanted = order(tmp_path, corpus(tmp_path, 6), server)
    run(wanted)
    journal = tmp_path / "labels/uplifting/journal.jsonl"
    os.truncate(journal, journal.stat().st_size - cut)
    done = run(wanted)
    assert (done.asked, done.written.labelled, server.mock.seen["answered"]) == (1, 6, 7)


def test_a_damaged_journal_is_named(tmp_path: Path, serve: Serve) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 6), serve())
    run(wanted)
    journal = tmp_path / "labels/uplifting/journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'{"kind"', b'{"kin', 1))
    with pytest.raises(DataError, match=r"journal\.jsonl, line 1: is no entry of a journal"):
        run(wanted)


GOOD = {"reasoning": 'He said "ten", then \\ left.\nA line.', "content_type": "other"}
GOOD |= {name: number for number, name in enumerate(CONFIG.dimensions, start=1)}
TRUE = {name: number for number, name in enumerate(CONFIG.dimensions, start=1)}


def corrupted(chance: random.Random) -> str:
    "A reply with one of the faults that real replies have, or with an accident."
    text = json.dumps(GOOD)
    place = chance.randrange(len(text))
    match chance.randrange(12):
        case 0:
            return f"Sure!\n```json\n{text}\n```\nDone."
        case 1:
            return text.replace("left", "\\alpha \\epsilon \\d")
        case 2:
            return text.replace("\\n", "\n")
        case 3:
            return text[:-1] + ",}"
        case 4:
            return text[:place]
        case 5:
            return text[:place] + text[place + 1 :]
        case 6:
            return text[:place] + chance.choice('"{}[],:\\0123456789x ') + text[place:]
        case 7:
            return text + chance.choice(["}", " {", "\n" + text, "\n" + text.replace(": 3", ": 9")])
        case 8:
            return text.replace('"', "'")
        case 9:
            return json.dumps({**GOOD, chance.choice([*TRUE]): chance.choice([11, -1, "x", None, 3.5, True, [1]])})
        case 10:
            return json.dumps({"dimensions": TRUE, "reasoning": "", "content_type": None})
        case _:
            return json.dumps({name: part for name, part in GOOD.items() if name != chance.choice([*TRUE])})


def test_corrupted_replies_are_read_rightly_or_not_at_all() -> None:
    chance = random.Random(11)
    read = asked_again = 0
    for _ in range(3000):
        text = corrupted(chance)
        analysis = read_reply(CONFIG, text)
        if isinstance(analysis, Analysis):
            read += 1
            # A digit that changed inside of a number is valid JSON: no reader can see it.
            if analysis.scores != TRUE:
                changed = [name for name, score in analysis.scores.items() if score != TRUE[name]]
                assert len(changed) == 1
                assert re.search(rf'"{changed[0]}": {analysis.scores[changed[0]]}\b', text)
        else:
            asked_again += 1
            assert "\n" not in analysis
    assert read > 900
    assert read + asked_again == 3000
