"""Labels by the batch: half the bill, and a kill at any step submits nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llm_mock import MockServer

from ocr_sprint.core.errors import UsageError
from ocr_sprint.core.llm_batch import GeminiBatches
from ocr_sprint.core.llm_prices import LISTED
from ocr_sprint.core.llm_protocol import Parameters, Usage
from ocr_sprint.ground_truth.label import Done, Order, label
from ocr_sprint.ground_truth.label_journal import Journal

FILTER = Path("filters/uplifting/v1")


@pytest.fixture
def server() -> Iterator[MockServer]:
    with MockServer() as opened:
        yield opened


@pytest.fixture
def order(tmp_path: Path, server: MockServer, monkeypatch: pytest.MonkeyPatch) -> Order:
    monkeypatch.setenv("GEMINI_API_KEY", "fictitious-key")
    rows = [{"id": f"a-{n}", "title": f"Well {n}", "content": f"Forty families dug well {n}."} for n in range(30)]
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model, small = "google-genai:gemini-2.5-flash", Parameters(max_output_tokens=300)
    labels = tmp_path / "labels"
    return Order(FILTER, [str(path)], labels, model, base_url=server.url, parameters=small, batch=True, every=0.01)


def run(order: Order) -> Done:
    return asyncio.run(label(order))


def test_a_batch_costs_half_and_is_not_made_again(order: Order, server: MockServer) -> None:
    done = run(order)
    assert (done.ending, done.written.labelled) == ("done", 30)
    bill = LISTED["gemini-2.5-flash"].cost(Usage(server.mock.tokens_in, server.mock.tokens_out), batch=True)
    assert done.spent == pytest.approx(bill)
    assert run(order).asked == 0
    assert server.mock.seen["batches"] == 1


class KilledError(BaseException):
    "What a kill looks like from inside."


def dying(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    "Die at the so manieth thing that is done to the journal or the provider: before it, or right after it."
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if done == step:
            raise KilledError

    append = Journal.append

    def journalling(self: Journal, entry: dict[str, Any]) -> None:
        tick()
        append(self, entry)

    def around(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*words: Any) -> Any:
            tick()
            answer = await method(*words)
            tick()
            return answer

        return call

    monkeypatch.setattr(Journal, "append", journalling)
    for name in ("submit", "find", "collect"):
        monkeypatch.setattr(GeminiBatches, name, around(getattr(GeminiBatches, name)))


@pytest.mark.parametrize("steps", [(step,) for step in range(1, 12)] + [(3, 2), (2, 1, 3), (4, 5, 6)])
def test_a_kill_at_any_step_submits_nothing_twice(
    order: Order, server: MockServer, monkeypatch: pytest.MonkeyPatch, steps: Sequence[int]
) -> None:
    for step in steps:
        with monkeypatch.context() as patched, pytest.raises(KilledError):
            dying(patched, step)
            run(order)
    done = run(order)
    assert done.written.labelled == 30
    assert (server.mock.seen["batches"], server.mock.seen["answered"]) == (1, 30)
    bill = LISTED["gemini-2.5-flash"].cost(Usage(server.mock.tokens_in, server.mock.tokens_out), batch=True)
    assert done.spent == pytest.approx(bill)


def test_a_batch_that_may_cost_more_than_the_cap_is_not_submitted(order: Order, server: MockServer) -> None:
    done = run(replace(order, max_cost=0.001))
    assert (done.ending, done.written.labelled, server.mock.seen["batches"]) == ("budget", 0, 0)


def test_records_that_were_set_aside_are_charged_once_after_a_kill(
    order: Order, server: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.mock.settings.finish = lambda prompt: "blocked" if "well 1" in prompt else "stop"
    with monkeypatch.context() as patched, pytest.raises(KilledError):
        dying(patched, 30)
        run(order)
    done = run(order)
    assert (done.written.labelled, dict(done.written.refused)) == (19, {"blocked": 11})
    bill = LISTED["gemini-2.5-flash"].cost(Usage(server.mock.tokens_in, server.mock.tokens_out), batch=True)
    assert done.spent == pytest.approx(bill)


def test_answers_with_keys_of_others_or_twice_label_nothing_else(
    order: Order, server: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = GeminiBatches.collect

    async def confused(self: GeminiBatches, job: str) -> Any:
        found = await collect(self, job)
        return found and [*found[:20], found[3], ("0" * 64, found[21][1]), ("None", found[22][1])]

    with monkeypatch.context() as patched:
        patched.setattr(GeminiBatches, "collect", confused)
        done = run(order)
    assert (done.written.labelled, done.written.missing) == (20, 10)
    again = run(order)
    assert (again.asked, again.written.labelled, server.mock.seen["batches"]) == (10, 30, 2)


def test_a_batch_that_is_under_way_counts_against_the_cap(order: Order, server: MockServer) -> None:
    server.mock.settings.batches_wait = True
    capped = replace(order, max_cost=0.06)

    async def interrupted() -> Done:
        task, journal = asyncio.create_task(label(capped)), order.output_dir / "uplifting/journal.jsonl"
        while not journal.exists() or b'"submitted"' not in journal.read_bytes():
            await asyncio.sleep(0.02)
        task.cancel()
        return await task

    assert asyncio.run(interrupted()).ending == "interrupted"
    with pytest.raises(UsageError, match="1 batches are with the provider and are paid for; go on with --batch"):
        run(replace(capped, batch=False))
    with Path(order.source[0]).open("a", encoding="utf-8") as out:
        out.writelines(json.dumps({"id": f"b-{n}", "content": f"Forty families dug {n}."}) + "\n" for n in range(30))
    server.mock.settings.batches_wait = False
    more = run(replace(capped, refresh_plan=True))
    assert (more.ending, more.written.labelled, server.mock.seen["batches"]) == ("budget", 30, 1)


def test_control_c_leaves_the_batch_with_the_provider_and_prints_the_command_to_go_on(
    order: Order, server: MockServer
) -> None:
    server.mock.settings.batches_wait = True
    words = ["--filter", str(FILTER), "--source", order.source[0], "--output-dir", str(order.output_dir), "--batch"]
    words += ["--llm", order.llm, "--base-url", server.url, "--max-output-tokens", "300"]
    command = [sys.executable, "-m", "ocr_sprint.tools.batch_labeler", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        journal = order.output_dir / "uplifting/journal.jsonl"
        while not journal.exists() or b'"submitted"' not in journal.read_bytes():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted (1 batches are with the provider); go on with:" in said
    server.mock.settings.batches_wait = False
    again = said.strip().splitlines()[-1].split()
    done = subprocess.run([sys.executable, *again[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (server.mock.seen["batches"], server.mock.seen["answered"]) == (1, 30)
