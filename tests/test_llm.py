"""Every adapter against a provider on loopback: what it sends, what each fault becomes, and that it repeats nothing."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import keyring
import pytest
from keyring.errors import KeyringError
from llm_mock import MockServer

from ocr_sprint.core.errors import UsageError
from ocr_sprint.core.llm import PROVIDERS, find_key, model_price, open_oracle, parse_model
from ocr_sprint.core.llm_protocol import (
    Answered,
    Blocked,
    Fatal,
    Oracle,
    Outcome,
    Parameters,
    RateLimited,
    Request,
    TooLong,
    Truncated,
    TryAgain,
)
from ocr_sprint.core.llm_server import LONGEST_REPLY

SCHEMA = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string"},
        "agency": {"type": "integer", "minimum": 0, "maximum": 10},
        "wonder": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["reasoning", "agency", "wonder"],
    "additionalProperties": False,
}
MODELS = {
    "google-generativeai": "google-generativeai:gemini-2.5-flash",
    "google-genai": "google-genai:gemini-2.5-flash",
    "openai": "openai:gpt-4o-mini",
    "anthropic": "anthropic:claude-haiku-4-5",
    "server": "server:tiny",
}
KEY = "fictitious-key-of-nobody"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "get_password", lambda *_: None)
    for _, _, _, names in PROVIDERS.values():
        for name in names[:1]:
            monkeypatch.setenv(name, KEY)


@pytest.fixture(params=MODELS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Serve = Callable[..., MockServer]


def address(provider: str, server: MockServer) -> str:
    return server.v1 if provider in ("openai", "server") else server.url


def ask(provider: str, url: str, requests: list[Request], seconds: float = 20) -> list[Outcome]:
    "The outcomes of requests that are all under way together."

    async def run() -> list[Outcome]:
        oracle: Oracle = open_oracle(MODELS[provider], base_url=url, seconds=seconds, concurrency=32)
        try:
            return await asyncio.gather(*(oracle.ask(request) for request in requests))
        finally:
            await oracle.close()

    return asyncio.run(run())


def requests(count: int, schema: dict[str, Any] | None = SCHEMA) -> list[Request]:
    return [Request(f"a-{n}", "Score this text. ", f"Text number {n}.", schema) for n in range(count)]


def test_an_answer_comes_with_its_tokens_and_model(provider: str, serve: Serve) -> None:
    server = serve()
    (outcome,) = ask(provider, address(provider, server), requests(1))
    assert isinstance(outcome, Answered)
    assert '"agency": ' in outcome.text
    assert (outcome.usage.input, outcome.usage.output) == (server.mock.tokens_in, server.mock.tokens_out)
    assert outcome.model != MODELS[provider].partition(":")[2]
    assert server.mock.prompts == Counter(["Score this text. Text number 0."])


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"busy": 1, "retry_after": 7}, RateLimited),
        ({"fails": 1}, TryAgain),
        ({"malformed": 1}, TryAgain),
        ({"dropped": 1}, TryAgain),
        ({"finish": lambda _: "length"}, Truncated),
        ({"finish": lambda _: "blocked"}, Blocked),
    ],
    ids=["busy", "fails", "malformed", "dropped", "length", "blocked"],
)
def test_each_fault_has_its_type_and_is_met_once(
    provider: str, serve: Serve, settings: dict[str, Any], kind: type
) -> None:
    server = serve(**settings)
    (outcome,) = ask(provider, address(provider, server), requests(1))
    assert type(outcome) is kind
    met = sum(server.mock.seen[name] for name in ("busy", "fails", "answered"))
    assert met == 1, "an attempt that the SDK repeated by itself"
    if isinstance(outcome, RateLimited):
        assert (outcome.per, outcome.seconds) == ("minute", pytest.approx(7, abs=0.01))
    if isinstance(outcome, TryAgain):
        assert outcome.paid == ("fails" not in settings)


def test_a_reply_without_end_is_not_read_to_its_end(serve: Serve) -> None:
    server = serve(padding=LONGEST_REPLY - 4096)
    assert isinstance(ask("server", server.v1, requests(1))[0], Answered)
    server.mock.settings.padding = 20 * LONGEST_REPLY
    (outcome,) = ask("server", server.v1, requests(1))
    assert outcome == TooLong("the reply has more than 1048576 bytes")
    server.mock.settings.fails, server.mock.settings.fails_with = 1, (400, "x" * 2 * LONGEST_REPLY)
    (outcome,) = ask("server", server.v1, requests(1))
    assert isinstance(outcome, Fatal)


def test_the_quota_of_a_day_is_told_from_that_of_a_minute(provider: str, serve: Serve) -> None:
    server = serve(requests_a_day=1)
    first = ask(provider, address(provider, server), requests(1))
    second = ask(provider, address(provider, server), requests(1))
    assert isinstance(first[0], Answered)
    assert isinstance(second[0], RateLimited)
    assert second[0].per == "day"


def test_a_server_that_is_not_there_costs_nothing(provider: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}" + ("/v1" if provider in ("openai", "server") else "")
    (outcome,) = ask(provider, url, requests(1))
    assert isinstance(outcome, TryAgain)
    assert not outcome.paid


def test_a_server_that_is_too_slow_may_have_charged(provider: str, serve: Serve) -> None:
    (outcome,) = ask(provider, address(provider, serve(latency=30)), requests(1), seconds=1.0)
    assert isinstance(outcome, TryAgain)
    assert outcome.paid


def test_a_model_that_is_not_there_ends_the_run(provider: str, serve: Serve) -> None:
    server = serve()
    (outcome,) = ask(provider, address(provider, server) + "/nowhere", requests(1))
    assert isinstance(outcome, Fatal)
    assert outcome.scope == "run"


def test_many_requests_are_under_way_together(provider: str, serve: Serve) -> None:
    server = serve(latency=1)
    outcomes = ask(provider, address(provider, server), requests(32))
    assert all(isinstance(outcome, Answered) for outcome in outcomes)
    assert server.mock.most_under_way == 32


def test_chaos_never_raises_and_never_mixes_answers_up(provider: str, serve: Serve) -> None:
    server = serve(busy=0.2, fails=0.1, malformed=0.05, dropped=0.05, answer=lambda prompt, _: f'{{"for": "{prompt}"}}')
    asked = requests(120)
    outcomes = ask(provider, address(provider, server), asked)
    kinds = Counter(type(outcome).__name__ for outcome in outcomes)
    assert set(kinds) == {"Answered", "RateLimited", "TryAgain"}
    for request, outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, Answered):
            assert outcome.text == f'{{"for": "{request.prompt}"}}'


def test_no_outcome_shows_the_key(provider: str, serve: Serve) -> None:
    for settings in ({}, {"fails": 1}, {"busy": 1}):
        outcomes = ask(provider, address(provider, serve(**settings)), requests(1))
        assert KEY not in repr(outcomes)


def test_a_key_may_stand_in_the_keyring_and_the_environment_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = {("ocr_sprint", "openai"): KEY}
    monkeypatch.setattr(keyring, "get_password", lambda *place: ring.get(place))
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert (find_key("openai"), find_key("anthropic")) == (KEY, None)
    monkeypatch.setenv("OPENAI_API_KEY", "another-fictitious-key")
    assert find_key("openai") == "another-fictitious-key"


def test_a_machine_without_a_keyring_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: str) -> str:
        raise KeyringError("no recommended backend was available")

    monkeypatch.setattr(keyring, "get_password", broken)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert find_key("openai") is None


@pytest.mark.parametrize("status", [401, 500])
def test_a_key_that_the_provider_repeats_is_in_no_outcome(provider: str, serve: Serve, status: int) -> None:
    server = serve(fails=1, fails_with=(status, f"{KEY} is not welcome; no, {KEY}!"))
    (outcome,) = ask(provider, address(provider, server), requests(1))
    assert isinstance(outcome, Fatal if status == 401 else TryAgain)
    assert "is not welcome" in outcome.detail
    assert KEY not in repr(outcome)


@pytest.mark.parametrize("provider", ["google-generativeai", "google-genai", "openai", "anthropic"])
def test_a_missing_key_is_said_before_anything_is_sent(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = PROVIDERS[provider][3]
    for name in names:
        monkeypatch.setenv(name, " ")
    assert find_key(provider) is None
    with pytest.raises(UsageError, match=f"no key; set {names[0]}"):
        open_oracle(MODELS[provider])


def test_parameters_that_a_provider_cannot_send_are_refused() -> None:
    with pytest.raises(UsageError, match=r"use google-genai:gemini-2\.5-pro"):
        open_oracle("gemini-pro", parameters=Parameters(thinking_budget=0))


def test_models_without_a_listed_price_have_none() -> None:
    assert model_price(parse_model("openai:gpt-unheard-of")) is None
    price = model_price(parse_model("claude"))
    assert price is not None
    assert price.output == 15.0
