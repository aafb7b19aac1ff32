"""A calibration as calibrate_oracle leaves it: fictitious notices, and files of labels in the place of models."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ocr_sprint.ground_truth.agreement_intervals import Resampling
from ocr_sprint.ground_truth.calibrate import calibrate
from ocr_sprint.ground_truth.calibration_order import Order
from ocr_sprint.ground_truth.calibration_report import write_calibration
from ocr_sprint.ground_truth.filters import load_filter

FILTER = Path("filters/uplifting/v1")
DIMENSIONS = tuple(load_filter(FILTER).config.dimensions)
PLACES = ("Kedungsari", "Watuireng", "Lembah Sunyi", "Tanjung Damar", "Karangmulya", "Bukit Salam", "Rawa Kuning")
DEEDS = {
    "dug a well together": ("Forty families dug for six weeks.", "Water-borne illness fell by half within a year."),
    "opened a repair workshop": ("Volunteers mend radios and bicycles.", "Two neighbouring villages copied the plan."),
    "took back its forest": (
        "A court returned the land after thirty years.",
        "The first harvest was shared among all.",
    ),
    "announced an app": ("The shares of the firm rose by eight per cent.", "A first version may come next year."),
    "lost its bridge": ("The flood took the bridge on 12 May.", "The authority promises a new one."),
}
BEHAVIOUR = {"flash": (0.6, 1.6), "pro": (0.0, 0.7), "haiku": (-0.9, 1.1)}  # bias and noise


def notice(number: int) -> dict[str, str]:
    place, deed = PLACES[number % len(PLACES)], [*DEEDS][number % len(DEEDS)]
    first, second = DEEDS[deed]
    said = f"The village of {place} {deed}. {first} {second}\n\nThis is number {number} of the gazette's series. "
    said += (
        "Everybody who was asked said that the work was hard, and that nobody would want to go back to the time before."
    )
    told = {"source": "Upper River Gazette", "published_date": f"2026-05-{number % 27 + 1:02}", "language": "en"}
    return {"id": f"gazette-{number:03}", "title": f"{place} {deed}", "content": said, **told}


def truth(number: int) -> np.ndarray:
    """What a notice deserves on each dimension."""
    dice = np.random.default_rng(number % len(DEEDS))
    return np.clip(dice.normal(5, 2) + dice.normal(0, 1.8, len(DIMENSIONS)), 0, 10)


def label(number: int, name: str) -> dict:
    bias, noise = BEHAVIOUR[name]
    dice = np.random.default_rng([number, len(name)])
    scores = np.clip(truth(number) + bias + dice.normal(0, noise, len(DIMENSIONS)), 0, 10).round().astype(int).tolist()
    first, second = DEEDS[[*DEEDS][number % len(DEEDS)]]
    quoted = [first if place % 2 else second for place in range(len(DIMENSIONS))]
    parts = zip(DIMENSIONS, scores, quoted, strict=True)
    rated = {each: {"score": score, "evidence": quote} if name != "haiku" else score for each, score, quote in parts}
    kind = "business_news" if "shares" in first else "community_building"
    told = (
        f"{PLACES[number % len(PLACES)]} is the subject; what decided the scores is that {first[0].lower()}{first[1:]}"
    )
    return {"id": f"gazette-{number:03}", "content_type": kind, "reasoning": told, **rated}


def calibrated(folder: Path, count: int = 24) -> Path:
    """Write texts and labels, compare them, and give the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"raw": [notice(number) for number in range(count)]}
    files |= {name: [label(number, name) for number in range(count)] for name in BEHAVIOUR}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    models = [f"file:{folder / name}.jsonl" for name in BEHAVIOUR]
    order = Order(FILTER, [str(folder / "raw.jsonl")], models, folder / "reports/gazette", size=count)
    with ThreadPoolExecutor() as threads:  # a browser test has a loop of its own
        done = threads.submit(lambda: asyncio.run(calibrate(order, resampling=Resampling(100)))).result()
    return write_calibration(done, folder / "reports/gazette.md")[".md"]
