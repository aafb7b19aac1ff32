"""A provider on loopback: three wire protocols and Gemini's batches, with latency, chaos, quotas and a bill.

Every answer is computed from the text, so that a run can be compared with another one record by record. What it would
charge is counted when a real provider would count it: when the answer is made, whether or not it arrives.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from aiohttp import web

OPENAI, ANTHROPIC, GEMINI = "openai", "anthropic", "gemini"


@dataclass
class Settings:
    "How the mock behaves."

    latency: float = 0.0  # seconds
    busy: float = 0.0  # share of 429
    fails: float = 0.0  # share of failures
    fails_with: tuple[int, str] = (500, "an author of errors")  # status and message
    malformed: float = 0.0  # share of 200 with a cut body
    padding: int = 0  # bytes of white space behind an answer
    dropped: float = 0.0  # share of connections closed after the work was done
    retry_after: float = 0.0  # seconds, as a 429 says
    requests_a_window: int = 0  # 0: no quota
    window: float = 60.0  # seconds; a test need not wait for a minute
    requests_a_day: int = 0
    batches_wait: bool = False  # batches are never done
    prose: bool = False  # answers stand in Markdown fences, as chatty models write them
    answer: Callable[[str, dict[str, Any]], str] | None = None  # from prompt and schema, instead of a computed one
    finish: Callable[[str], str] | None = None  # stop, length or blocked, from the prompt
    seed: int = 1


def kind_of(part: dict[str, Any]) -> str:
    "The type of a part of a schema; google-generativeai sends numbers for them."
    kind = part.get("type", "")
    return {1: "string", 2: "number", 3: "integer", 6: "object"}.get(kind, str(kind).lower())


def scores(prompt: str, schema: dict[str, Any]) -> dict[str, Any]:
    "An answer that fits the schema and depends on the prompt alone."
    answer: dict[str, Any] = {}
    for name, part in schema.get("properties", {}).items():
        digest = sha256(f"{name}\0{prompt}".encode()).digest()
        if kind_of(part) in ("integer", "number"):
            answer[name] = int(part.get("minimum", 0)) + digest[0] % (int(part.get("maximum", 10)) + 1)
        elif "enum" in part:
            answer[name] = part["enum"][digest[0] % len(part["enum"])]
        elif kind_of(part) == "object":
            answer[name] = scores(prompt, part)
        else:
            answer[name] = "Because the text says so."
    return answer


@dataclass
class Mock:
    "The server's state, and the handlers."

    settings: Settings = field(default_factory=Settings)
    seen: Counter[str] = field(
        default_factory=Counter
    )  # answered, busy, fails, malformed, dropped, over_quota, batches
    prompts: Counter[str] = field(default_factory=Counter)  # answers made per prompt
    tokens_in: int = 0
    tokens_out: int = 0
    under_way: int = 0
    most_under_way: int = 0
    first: float = 0.0  # seconds, when a request came
    last: float = 0.0
    starts: deque[float] = field(default_factory=deque)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.settings.seed)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self.handler(OPENAI))
        app.router.add_post("/v1/messages", self.handler(ANTHROPIC))
        app.router.add_post("/v1beta/models/{call}", self.gemini)
        app.router.add_get("/v1beta/batches", self.list_batches)
        app.router.add_get("/v1beta/batches/{name}", self.get_batch)
        app.router.add_get("/stats", self.stats)
        return app

    # -- quotas and chaos ---------------------------------------------------------------------------------------

    def refusal(self, protocol: str) -> web.Response | None:
        settings, now = self.settings, time.monotonic()
        while self.starts and self.starts[0] <= now - settings.window:
            self.starts.popleft()
        if settings.requests_a_day and self.seen["admitted"] >= settings.requests_a_day:
            return self.error(protocol, 429, 3600, "PerDay")
        if settings.requests_a_window and len(self.starts) >= settings.requests_a_window:
            self.seen["over_quota"] += 1
            return self.error(protocol, 429, self.starts[0] + settings.window - now, "PerMinute")
        self.starts.append(now)
        luck = self.random.random()
        if luck < settings.busy:
            self.seen["busy"] += 1
            return self.error(protocol, 429, settings.retry_after, "PerMinute")
        if luck < settings.busy + settings.fails:
            self.seen["fails"] += 1
            status, message = settings.fails_with
            return web.json_response({"error": {"message": message}}, status=status)
        self.seen["admitted"] += 1
        return None

    def error(self, protocol: str, status: int, seconds: float, quota: str) -> web.Response:
        if protocol == GEMINI:  # no header: real Gemini has none
            details = [
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": f"Req{quota}"}]},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds:.3f}s"},
            ]
            body = {"code": status, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded", "details": details}
            return web.json_response({"error": body}, status=status)
        unit = "RPD" if quota == "PerDay" else "RPM"
        error = {"type": "rate_limit_error", "message": f"Rate limit reached on requests ({unit})"}
        return web.json_response({"error": error}, status=status, headers={"retry-after": f"{seconds:.3f}"})

    # -- answers ------------------------------------------------------------------------------------------------

    def reply(self, prompt: str, schema: dict[str, Any]) -> tuple[str, str, int, int]:
        "Text, finish and tokens of an answer; from here on it is on the bill."
        settings = self.settings
        text = settings.answer(prompt, schema) if settings.answer else json.dumps(scores(prompt, schema))
        text = f"Here you are:\n```json\n{text}\n```" if settings.prose else text
        finish = settings.finish(prompt) if settings.finish else "stop"
        text = text[: len(text) // 2] if finish == "length" else text
        tokens_in, tokens_out = -(-len(prompt.encode()) // 4), -(-len(text.encode()) // 4)
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.seen["answered"] += 1
        self.prompts[prompt] += 1
        return text, finish, tokens_in, tokens_out

    def handler(self, protocol: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            self.last = time.monotonic()
            self.first = self.first or self.last
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                refused = self.refusal(protocol)
                await asyncio.sleep(self.settings.latency)
                if refused is not None:
                    return refused
                answer = {OPENAI: self.openai, ANTHROPIC: self.anthropic, GEMINI: self.generate}[protocol](body)
                luck = self.random.random()
                if luck < self.settings.malformed:
                    self.seen["malformed"] += 1
                    return web.Response(body=json.dumps(answer)[:40].encode(), content_type="application/json")
                if luck < self.settings.malformed + self.settings.dropped:
                    self.seen["dropped"] += 1
                    assert request.transport is not None
                    request.transport.close()
                padded = json.dumps(answer).encode() + b" " * self.settings.padding
                return web.Response(body=padded, content_type="application/json")
            finally:
                self.under_way -= 1

        return handle

    def openai(self, body: dict[str, Any]) -> dict[str, Any]:
        form = body.get("response_format") or {}
        schema = (form.get("json_schema") or {}).get("schema") or {}
        text, finish, tokens_in, tokens_out = self.reply(body["messages"][-1]["content"], schema)
        named = {"blocked": "content_filter"}.get(finish, finish)
        choice = {"index": 0, "finish_reason": named, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
        top = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": f"{body['model']}-2025-06-01"}
        return top | {"choices": [choice], "usage": usage}

    def anthropic(self, body: dict[str, Any]) -> dict[str, Any]:
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else "".join(part["text"] for part in content)
        schema = ((body.get("output_config") or {}).get("format") or {}).get("schema") or {}
        text, finish, tokens_in, tokens_out = self.reply(prompt, schema)
        named = {"stop": "end_turn", "length": "max_tokens", "blocked": "refusal"}[finish]
        top = {"id": "msg_1", "type": "message", "role": "assistant", "model": f"{body['model']}-20250601"}
        usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
        return top | {"content": [{"type": "text", "text": text}], "stop_reason": named, "usage": usage}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = "".join(part["text"] for part in body["contents"][-1]["parts"])
        config = body.get("generationConfig") or {}
        schema = config.get("responseJsonSchema") or config.get("responseSchema") or {}
        text, finish, tokens_in, tokens_out = self.reply(prompt, schema)
        named = {"stop": "STOP", "length": "MAX_TOKENS", "blocked": "SAFETY"}[finish]
        parts = [] if finish == "blocked" else [{"text": text}]
        usage = {"promptTokenCount": tokens_in, "candidatesTokenCount": tokens_out}
        usage["totalTokenCount"] = tokens_in + tokens_out
        candidate = {"index": 0, "finishReason": named, "content": {"role": "model", "parts": parts}}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash-001"}

    # -- Gemini's calls and batches -----------------------------------------------------------------------------

    async def gemini(self, request: web.Request) -> web.StreamResponse:
        _, _, call = request.match_info["call"].partition(":")
        if call == "batchGenerateContent":
            return await self.create_batch(request)
        response: web.StreamResponse = await self.handler(GEMINI)(request)
        return response

    async def create_batch(self, request: web.Request) -> web.Response:
        batch = (await request.json())["batch"]
        name = f"batches/{len(self.batches) + 1}"
        self.seen["batches"] += 1
        answers = []
        for part in batch["inputConfig"]["requests"]["requests"]:
            answers.append({"response": self.generate(part["request"]), "metadata": part.get("metadata")})
        state = {"name": name, "displayName": batch.get("displayName"), "model": "models/gemini-2.5-flash"}
        state |= {"state": "BATCH_STATE_SUCCEEDED", "output": {"inlinedResponses": {"inlinedResponses": answers}}}
        self.batches[name] = {"name": name, "metadata": state, "done": True, "response": state["output"]}
        return web.json_response({"name": name, "metadata": state | {"state": "BATCH_STATE_PENDING", "output": None}})

    async def list_batches(self, _: web.Request) -> web.Response:
        return web.json_response({"operations": [*self.batches.values()]})

    async def get_batch(self, request: web.Request) -> web.Response:
        found = self.batches.get(f"batches/{request.match_info['name']}")
        if found and self.settings.batches_wait:
            waiting = found["metadata"] | {"state": "BATCH_STATE_RUNNING", "output": None}
            found = {"name": found["name"], "metadata": waiting}
        return web.json_response(found or {"error": {"code": 404}}, status=200 if found else 404)

    async def stats(self, _: web.Request) -> web.Response:
        told = {"seen": dict(self.seen), "tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        told |= {"most_under_way": self.most_under_way, "prompts": len(self.prompts)}
        told |= {"seconds": self.last - self.first}
        return web.json_response(told | {"repeated": sum(count - 1 for count in self.prompts.values())})


class MockServer:
    "A mock that runs in a thread while the `with` block does."

    def __init__(self, **settings: Any) -> None:
        self.mock = Mock(Settings(**settings))
        self._started = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(self.mock.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    @property
    def url(self) -> str:
        "The address without a path, as the Google and Anthropic clients want it."
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1(self) -> str:
        "The address as OpenAI's clients want it."
        return f"{self.url}/v1"


def main() -> None:
    "Serve until killed: for tests and measurements that want the server in a process of its own."
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    for name in ("latency", "busy", "fails", "malformed", "dropped", "retry_after", "window"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Settings, name))
    for name in ("requests_a_window", "requests_a_day", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    given = vars(parser.parse_args())
    port = given.pop("port")
    web.run_app(
        Mock(Settings(**given)).application(),
        host="127.0.0.1",
        port=port,
        access_log=None,
        backlog=1024,
        print=lambda text: print(re.sub(r"\s+", " ", text), flush=True),
    )


if __name__ == "__main__":
    main()
