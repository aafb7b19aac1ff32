"""What the tests of the labeller share: a corpus, an order, and its labels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_mock import MockServer

from ocr_sprint.ground_truth.filters import load_filter
from ocr_sprint.ground_truth.label import Done, Order, label

FILTER = Path("filters/uplifting/v1")
CONFIG = load_filter(FILTER).config
Serve = Callable[..., MockServer]


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
