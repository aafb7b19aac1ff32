"""Every adapter against a mock of the providers that other people wrote, with a third of all requests going wrong."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aimock_server import AimockServer, aimock

from ocr_sprint.ground_truth.filters import load_filter
from ocr_sprint.ground_truth.label import Order, label
from ocr_sprint.ground_truth.label_run import Terms

pytestmark = pytest.mark.usefixtures("fictitious_keys", "little_jitter")
FILTER = Path("filters/uplifting/v1")
DIMENSIONS = list(load_filter(FILTER).config.dimensions)
RECORDS = 100
# aimock rolls one die after another: a later rate is a share of what the earlier ones left. Of all requests these are
# 10 % answered with 500, 5 % malformed, 20 % with 429 and 5 % without an answer.
CHAOS = {"dropRate": 0.10, "malformedRate": 0.05 / 0.90, "rateLimitRate": 0.20 / 0.85, "disconnectRate": 0.05 / 0.65}
WAYS = {
    "server:tiny": "/v1",
    "openai:gpt-4o-mini": "/v1",
    "claude-haiku": "",
    "gemini-flash": "",
    "google-genai:gemini-2.5-flash": "",
}


@pytest.fixture(scope="module")
def server() -> Iterator[AimockServer]:
    with aimock() as started:
        yield started


def well(n: int) -> str:
    return f"Forty families dug well {n} together."


def scores(n: int) -> dict[str, int]:
    "Those of one article alone, so that an answer that reaches another article is seen."
    return {name: (n * 7 + place * 3) % 11 for place, name in enumerate(DIMENSIONS)}


def answers() -> list[dict[str, Any]]:
    return [
        {
            "match": {"userMessage": well(n)},
            "response": {"content": json.dumps({"reasoning": "", "content_type": "other", **scores(n)})},
        }
        for n in range(RECORDS)
    ]


@pytest.mark.parametrize("llm", WAYS)
def test_chaos_of_others_loses_nothing_and_repeats_only_what_failed(
    tmp_path: Path, server: AimockServer, llm: str
) -> None:
    source = tmp_path / "raw.jsonl"
    rows = ({"id": f"a-{n}", "content": well(n)} for n in range(RECORDS))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    server.begin(answers(), CHAOS)
    order = Order(FILTER, [str(source)], tmp_path / "labels", llm, base_url=server.url + WAYS[llm])
    done = asyncio.run(label(replace(order, terms=Terms(concurrency=RECORDS, seed=1))))
    assert (done.ending, done.written.labelled, done.written.missing) == ("done", RECORDS, 0)
    lines = (tmp_path / "labels/uplifting/labeled_articles.jsonl").read_text(encoding="utf-8").splitlines()
    for n, line in enumerate(lines):
        told = json.loads(line)["uplifting_analysis"]
        assert {name: told[name] for name in DIMENSIONS} == scores(n)
    seen = server.seen()
    faults = Counter(request.fault for request in seen if request.fault is not None)
    assert set(faults) == {"drop", "malformed", "rateLimit", "disconnect"}
    assert len(seen) <= 1.05 * (RECORDS + faults.total())
    undisturbed = Counter(
        n for n in range(RECORDS) for request in seen if not request.fault and well(n) in request.text
    )
    assert set(undisturbed.values()) == {1}, "an answered record was asked about again"
