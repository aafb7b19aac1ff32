"""Labelled articles for tests: most scores low, dimensions that go together, tiers, sources, and copies of texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

DIMENSIONS = ("agency", "progress", "benefit", "connection", "innovation", "justice", "resilience", "wonder")


def write_labels(path: Path, count: int, dimensions: tuple[str, ...] = DIMENSIONS, copies: int = 0) -> Path:
    """Write that many articles, and copies of the first ones under other ids."""
    generator = np.random.default_rng(5)
    common = generator.gamma(1.7, 1.3, (count, 1))
    scores = np.clip(np.round(common + generator.normal(0, 0.9, (count, len(dimensions)))), 0, 10).astype(int)
    made = []
    for index, row in enumerate(scores.tolist()):
        mean = sum(row) / len(row)
        tier = "impact" if mean > 5 else "connection" if mean > 2.5 else "not_uplifting"
        words = " ".join(f"kata{number}" for number in generator.integers(0, 10**6, 30))
        label = {**dict(zip(dimensions, row, strict=True)), "tier": tier}
        source = f"koran {int(9 * generator.random() ** 2)}"
        made.append({"id": f"artikel-{index}", "source": source, "text": words, "uplifting_analysis": label})
    made += [{**record, "id": f"salinan-{number}"} for number, record in enumerate(made[:copies])]
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    return path
