"""A third of all requests goes wrong, through every adapter, and nothing is lost, mixed up or repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from label_samples import Serve, corpus, ids, order, run

from ocr_sprint.ground_truth.label_run import Terms

pytestmark = pytest.mark.usefixtures("fictitious_keys", "little_jitter")


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
    faults = sum(seen[name] for name in ("busy", "fails", "malformed", "dropped"))
    assert seen["answered"] + seen["busy"] + seen["fails"] <= 1.05 * (120 + faults)
