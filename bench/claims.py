"""Measure how often the ranges that students state hold the truth, on fictitious texts and drawn scores.

    python bench/claims.py curve --sims 120      forecasts of the learning curve at 1.5, 2 and 2.5 times 240 labels
    python bench/claims.py gain --sims 200       the interval of what a calibration curve is worth, also with copies

One thread of BLAS; everything is seeded.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from ocr_sprint.training.calibration import fit_calibration, rising_curve
from ocr_sprint.training.features import count_texts, design, features_of
from ocr_sprint.training.fiction import DIMENSIONS, fictitious_articles
from ocr_sprint.training.learnability import learning_curve
from ocr_sprint.training.ridge import Spectrum, best_penalties

POOL, LABELS = 2400, 240


def true_errors(gram: np.ndarray, scores: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """The error of each dimension at a size: each text of the pool is left out of a part of that size, eight times."""
    found = []
    for _ in range(8):
        errors = np.zeros_like(scores)
        for part in np.array_split(generator.permutation(len(scores)), round(len(scores) / size)):
            spectrum = Spectrum.of(gram[np.ix_(part, part)], np.arange(len(part)))
            errors[part] = np.abs(best_penalties(spectrum, scores[part] - scores[part].mean(axis=0).round())[1])
        found.append(errors.mean(axis=0))
    return np.mean(found, axis=0)


def curve(sims: int) -> None:
    """How often the range of a forecast holds the error, and the change, that more labels bring."""
    articles = list(fictitious_articles(POOL, seed=9, words=60))
    counts = count_texts([f"{article['title']}\n\n{article['text']}" for article in articles])
    gram = design(features_of(counts), counts).gram()
    scores = np.array([[article["uplifting_analysis"][name] for name in DIMENSIONS[:3]] for article in articles])
    generator = np.random.default_rng(0)
    factors = (1.5, 2.0, 2.5)
    truth = {factor: true_errors(gram, scores, int(factor * LABELS), generator) for factor in (1.0, *factors)}
    drawn = [generator.choice(POOL, LABELS, replace=False) for _ in range(sims)]
    for place, name in enumerate(DIMENSIONS[:3]):
        curves = [
            learning_curve(gram[np.ix_(rows, rows)], scores[rows, place], seed) for seed, rows in enumerate(drawn)
        ]
        for factor in factors:
            told = [found.forecast(int(factor * LABELS)) for found in curves if found is not None]
            true, change = truth[factor][place], truth[factor][place] - truth[1.0][place]
            errors = np.mean([found.low <= true <= found.high for found in told])
            changes = np.mean([found.change_low <= change <= found.change_high for found in told])
            ends = np.mean([[found.change_low, found.change_high] for found in told], axis=0)
            print(
                f"{name} x{factor:g}: error {true:.3f} held {errors:.0%}; change {change:+.3f} held {changes:.0%} "
                f"(mean range {ends[0]:+.3f} to {ends[1]:+.3f})",
                flush=True,
            )


def gain(sims: int) -> None:
    """How often the interval of calibration's gain holds what the curve is worth on 40,000 other texts."""
    generator = np.random.default_rng(0)

    def draw(count: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
        true = generator.normal(5, 2, count)
        labels = np.clip(true + generator.normal(0, 1.0, count), 0, 10)
        return 5 + slope * (true - 5) + generator.normal(0, 0.4, count), labels

    for count, copies, slope in (
        (60, 1, 0.8),
        (60, 5, 0.8),
        (200, 1, 0.8),
        (200, 3, 0.6),
        (1000, 1, 0.8),
        (5000, 1, 0.8),
    ):
        fresh, after = draw(40_000, slope)
        rows = []
        for _ in range(sims):
            predicted, labels = (np.repeat(values, copies) for values in draw(count, slope))
            groups = np.repeat(np.arange(count), copies)
            found = fit_calibration(predicted[:, None], labels[:, None], groups, ["a"])[0].gains[0]
            drawn = rising_curve(predicted, labels)
            true = float(np.abs(drawn.apply(fresh) - after).mean() - np.abs(fresh - after).mean())
            rows.append((found.low <= true <= found.high, found.used, found.after - found.before - true, true))
        held, used, off, true_change = np.array(rows).T
        on = used > 0
        print(
            f"{count} texts x {copies}, slope {slope}: held {held.mean():.0%}, true change {true_change.mean():+.3f}; "
            f"used in {on.mean():.0%}, of those held {held[on].mean():.0%}, claimed minus true {off[on].mean():+.3f}",
            flush=True,
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["curve", "gain"])
    parser.add_argument("--sims", type=int, default=120)
    given = parser.parse_args()
    {"curve": curve, "gain": gain}[given.what](given.sims)


if __name__ == "__main__":
    main()
