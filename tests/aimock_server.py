"""`@copilotkit/aimock`, a mock of LLM providers by other people: installed at first use, run on loopback.

It knows the wire protocols of OpenAI, Anthropic and Gemini from elsewhere than our own mock, so a misreading that both
of our sides share fails here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from npm_package import install

FOLDER = Path(__file__).resolve().parent / "aimock"
OLDEST = (20, 15)


def node() -> str:
    "The Node.js that runs it; a failed test says what is missing."
    program, npm = shutil.which("node"), shutil.which("npm")
    wanted = (
        "aimock needs Node.js 20.15 or newer and npm: apt-get install nodejs npm (Debian 13, Ubuntu 25.04 or newer)"
    )
    if program is None or npm is None:
        pytest.fail(f"{'node' if program is None else 'npm'} is not installed; {wanted}")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found = tuple(map(int, re.findall(r"\d+", told)[:2]))
    if found < OLDEST:
        pytest.fail(f"Node.js is {told}; {wanted}")
    return program


class Seen(NamedTuple):
    "One request, as aimock wrote it down."

    fault: str | None  # drop (a 500), malformed, rateLimit or disconnect
    status: int
    text: str  # everything that was sent
    at: float  # seconds


class AimockServer(NamedTuple):
    "A running aimock."

    url: str

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/__aimock/{path}", data, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def begin(self, answers: Sequence[Mapping[str, Any]], chaos: Mapping[str, float]) -> None:
        "Forget what was, and answer like this from here on."
        self._call("POST", "reset")
        self._call("POST", "fixtures", {"fixtures": answers})
        self._call("POST", "chaos", chaos)

    def seen(self) -> list[Seen]:
        "Every request since `begin`."
        return [
            Seen(
                entry["response"].get("chaosAction"),
                entry["response"]["status"],
                json.dumps(entry["body"]),
                entry["timestamp"] / 1000,
            )
            for entry in self._call("GET", "journal")
        ]


@contextmanager
def aimock() -> Iterator[AimockServer]:
    "An aimock while the block lasts."
    program, package = node(), install(FOLDER, "@copilotkit/aimock")
    words = [program, str(package / "dist/cli.js"), "--port", "0", "--strict", "--journal-max", "0"]
    words += ["--fixtures", str(FOLDER / "fixtures.json")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        told = ""
        for line in process.stdout:
            told += line
            if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail(f"aimock did not start: {' '.join(told.split())[-600:]}")
        try:
            yield AimockServer(found[1])
        finally:
            process.terminate()
