"""Quotas of minutes and days, budgets and forecasts."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import floats, integers, lists
from label_samples import Serve, corpus, order, run
from llm_mock import scores
from virtual_time import run_virtually

from ocr_sprint.core.llm_limits import Limits
from ocr_sprint.core.llm_prices import LISTED, Price
from ocr_sprint.core.llm_protocol import (
    Answered,
    Blocked,
    Fatal,
    Outcome,
    Parameters,
    RateLimited,
    Request,
    Truncated,
    TryAgain,
    Usage,
)
from ocr_sprint.ground_truth.label import Order, prepare
from ocr_sprint.ground_truth.label_budget import Budget
from ocr_sprint.ground_truth.label_decide import Stop
from ocr_sprint.ground_truth.label_journal import Journal
from ocr_sprint.ground_truth.label_run import Run, Terms

pytestmark = pytest.mark.usefixtures("fictitious_keys", "little_jitter")


class Provider:
    "Holds a sliding minute to its quotas, and keeps a bill; arrives and answers after uneven times."

    model = "provider:1"

    def __init__(self, price: Price, seed: int, quota: Limits | None = None, faults: float = 0.0) -> None:
        self.price, self.random, self.quota, self.faults = price, random.Random(seed), quota or Limits(), faults
        self.seen: list[tuple[float, int, int]] = []  # when, input tokens, output tokens
        self.oldest = 0  # of those in the latest minute
        self.over, self.bill = 0, 0.0

    def exceeded(self, now: float) -> bool:
        while self.oldest < len(self.seen) and self.seen[self.oldest][0] <= now - 60:
            self.oldest += 1
        minute = self.seen[self.oldest :]
        used = (len(minute) + 1, sum(row[1] for row in minute), sum(row[2] for row in minute))
        limits = (self.quota.requests, self.quota.input_tokens, self.quota.output_tokens)
        return any(limit is not None and amount > limit for amount, limit in zip(used, limits, strict=True))

    async def ask(self, request: Request) -> Outcome:
        loop, chance = asyncio.get_running_loop(), self.random
        await asyncio.sleep(chance.uniform(0.01, 0.08))
        if self.exceeded(loop.time()):
            self.over += 1
            return RateLimited("minute", 1.0)
        text = json.dumps(scores(request.prompt, dict(request.schema or {})))
        most = request.parameters.max_output_tokens
        usage = Usage(len(request.prompt.encode()) // 4, min(most, len(text) // 4 + chance.randrange(20)))
        self.seen.append((loop.time(), usage.input, usage.output))
        await asyncio.sleep(chance.uniform(0.2, 0.9))
        return self.fault(text, usage, most) if chance.random() < self.faults else self.charged(text, usage)

    def charged(self, text: str, usage: Usage) -> Outcome:
        self.bill += self.price.cost(usage)
        return Answered(text, usage, "served-1")

    def fault(self, text: str, usage: Usage, most: int) -> Outcome:
        whole = usage._replace(output=most)
        match self.random.randrange(8):
            case 0:
                return RateLimited("unknown", self.random.choice([None, 0.5]))
            case 1:
                return TryAgain("HTTP 500")
            case 2:
                self.bill += self.price.cost(whole)
                return TryAgain("no answer", paid=True)
            case 3:
                self.bill += self.price.cost(whole)
                raise ValueError("a fault of an adapter, after the work was done")
            case 4:
                self.bill += self.price.cost(whole)
                return Truncated(text[:20], whole, "served-1")
            case 5:
                self.bill += self.price.cost(usage)
                return Blocked("SAFETY", usage, "served-1")
            case 6:
                return self.charged("I would rather not.", usage)
            case _:
                return Fatal("HTTP 400")

    async def close(self) -> None:
        "Nothing to give back."


def virtually(
    monkeypatch: pytest.MonkeyPatch, wanted: Order, provider: Provider, *, stop_after: float | None = None
) -> Stop | None:
    "A run in virtual time; None when it was cut off like a killed process."
    prepared = prepare(wanted)

    async def program() -> Stop | None:
        with Journal(prepared.folder / "journal.jsonl") as journal:
            budget = Budget(wanted.max_cost, spent=prepared.state.spent)
            made = Run(prepared.asking, provider, journal, price=provider.price, budget=budget, terms=wanted.terms)
            try:
                return await asyncio.wait_for(made.label(prepared.todo), stop_after)
            except TimeoutError:
                return None

    return run_virtually(monkeypatch, program())


@pytest.mark.parametrize("concurrency", [64, 512])
@pytest.mark.parametrize(
    ("limits", "place"),
    [(Limits(requests=600), 0), (Limits(input_tokens=400_000), 1), (Limits(output_tokens=40_000), 2)],
    ids=["requests", "input", "output"],
)
def test_no_minute_is_exceeded_and_nearly_all_of_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, place: int, concurrency: int
) -> None:
    "Every sliding window of 60 s holds at most the quota; each minute in turn holds 97 % of it."
    wanted = order(tmp_path, corpus(tmp_path, 2000), terms=Terms(concurrency, limits, seed=1))
    provider = Provider(LISTED["gemini-2.5-flash"], 1, quota=limits)
    stop = virtually(monkeypatch, wanted, provider)
    assert stop is not None
    assert stop.ending == "done"
    assert provider.over == 0
    amounts = [(at, (1, given, made)[place]) for at, given, made in provider.seen]
    limit = (limits.requests, limits.input_tokens, limits.output_tokens)[place]
    assert limit is not None
    begun, ended = amounts[0][0], amounts[-1][0]
    minutes = [sum(amount for at, amount in amounts if begun + n * 60 <= at < begun + n * 60 + 60) for n in range(20)]
    whole = minutes[: int((ended - begun) // 60)]
    assert len(whole) >= 3
    assert min(whole) >= 0.97 * limit


@given(
    seed=integers(0, 10**6),
    cents=floats(0.1, 20),
    concurrency=integers(1, 80),
    faults=floats(0, 0.9),
    kills=lists(floats(0.05, 6.0), max_size=3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_accident_and_no_kill_takes_the_bill_over_the_cap(
    monkeypatch: pytest.MonkeyPatch, seed: int, cents: float, concurrency: int, faults: float, kills: list[float]
) -> None:
    price = LISTED["gemini-2.5-flash"]
    with TemporaryDirectory() as folder:
        wanted = order(Path(folder), corpus(Path(folder), 60), terms=Terms(concurrency, seed=seed))
        wanted = replace(wanted, max_cost=cents / 100, parameters=Parameters(max_output_tokens=500))
        provider = Provider(price, seed, faults=faults)
        for seconds in kills:
            virtually(monkeypatch, wanted, provider, stop_after=seconds)
        virtually(monkeypatch, wanted, provider)
        spent = prepare(wanted).state.spent
    assert provider.bill <= cents / 100 + 1e-12
    assert provider.bill <= spent + 1e-12, "something was paid for that the journal does not know of"


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
