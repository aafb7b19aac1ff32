"""Agreement on real labels: statistics against their peers, stored scores against the filter's arithmetic, intervals.

Usage: bench/agreement.py SCORES.jsonl [--simulate N]

SCORES.jsonl holds flat rows: set, model, id, content_type, a number per dimension, overall_uplift_score and tier. Pairs
of oracles are those that have scored the same set. Nothing of the file is written anywhere; only figures are printed.
`--simulate N` draws N fictitious samples for each of some sizes and counts how often the interval of alpha holds the
truth, which needs no file of scores and some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import krippendorff
import numpy as np
import pandas as pd
import pingouin
from scipy import stats
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from ocr_sprint.ground_truth.agreement import STATISTICS, Array, krippendorff_alpha
from ocr_sprint.ground_truth.agreement_intervals import Resampling, Rows, compare, resample
from ocr_sprint.ground_truth.equating import KINDS, equated, halves
from ocr_sprint.ground_truth.filters import load_filter
from ocr_sprint.ground_truth.label_reply import Analysis, read_analysis
from ocr_sprint.ground_truth.ratings import OVERALL, Ratings, overall_scores, rate
from ocr_sprint.ground_truth.tier_agreement import compare_tiers, tier_ranks

CONFIG = load_filter(Path("filters/uplifting/v1")).config
TOLERANCE = 1e-6


def read(path: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, dict[str, Analysis]]]]:
    """The rows, and the analyses by set, model and id."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    scale = CONFIG.scale.model_copy(update={"integers": False})
    lenient = CONFIG.model_copy(update={"scale": scale, "content_types": ()})
    found: dict[str, dict[str, dict[str, Analysis]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        analysis = read_analysis(lenient, row)
        if isinstance(analysis, str):
            raise SystemExit(f"{row['id']}: {analysis}")
        found[row["set"]][row["model"]][row["id"]] = analysis
    return rows, found


def stored_scores(rows: list[dict[str, Any]]) -> int:
    """Rows whose stored overall score, to two decimals, is not what the filter's arithmetic gives."""
    scores = np.array([[row[name] for name in CONFIG.dimensions] for row in rows], float)
    overall = overall_scores(CONFIG, scores, [row["content_type"] for row in rows])
    stored = np.array([row["overall_uplift_score"] for row in rows])
    return int((np.abs(overall - stored) > 0.005 + 1e-9).sum())


def peers(one: Array, other: Array, whole: bool) -> dict[str, float]:
    """The statistics as other libraries compute them."""
    n = len(one)
    apart = other - one
    reach = 1.96 * apart.std(ddof=1)
    frame = pd.DataFrame({"t": [*range(n)] * 2, "r": ["a"] * n + ["b"] * n, "s": np.concatenate((one, other))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        icc = pingouin.intraclass_corr(frame, targets="t", raters="r", ratings="s").set_index("Type")["ICC"]
    both = np.stack((one, other))
    found = {
        "pearson": stats.pearsonr(one, other).statistic,
        "spearman": stats.spearmanr(one, other).statistic,
        "mae": mean_absolute_error(one, other),
        "bias": apart.mean(),
        "lower_limit": apart.mean() - reach,
        "upper_limit": apart.mean() + reach,
        "icc_agreement": icc["ICC(A,1)"],
        "icc_consistency": icc["ICC(C,1)"],
        "alpha_interval": krippendorff.alpha(both, level_of_measurement="interval"),
        "alpha_ordinal": krippendorff.alpha(both, level_of_measurement="ordinal"),
    }
    if whole:
        labels = [*range(int(CONFIG.scale.minimum), int(CONFIG.scale.maximum) + 1)]
        first, second = one.astype(int), other.astype(int)
        found["weighted_kappa"] = cohen_kappa_score(first, second, labels=labels, weights="quadratic")
    return found


def worst_difference(one: Ratings, other: Ratings) -> tuple[int, float]:
    """Statistics compared with their peers, and the largest difference."""
    count, worst = 0, 0.0
    for name in one.measures:
        x, y = one.column(name), other.column(name)
        both = ~(np.isnan(x) | np.isnan(y))
        x, y = x[both], y[both]
        for statistic, expected in peers(x, y, bool((x == x.round()).all() and (y == y.round()).all())).items():
            count, worst = count + 1, max(worst, abs(float(STATISTICS[statistic](x, y)) - float(expected)))
    ranks = [tier_ranks(CONFIG, each.column(OVERALL)) for each in (one, other)]
    both = ~np.isnan(np.stack(ranks)).any(0)
    first, second = (each[both].astype(int) for each in ranks)
    tiers = compare_tiers(CONFIG, one.column(OVERALL), other.column(OVERALL), Resampling(100))
    expected_tiers = (
        (tiers.kappa.value, cohen_kappa_score(first, second)),
        (tiers.weighted_kappa.value, cohen_kappa_score(first, second, labels=[0, 1, 2], weights="quadratic")),
        (tiers.alpha_ordinal.value, krippendorff.alpha(np.stack((first, second)), level_of_measurement="ordinal")),
    )
    for found, expected in expected_tiers:
        count, worst = count + 1, max(worst, abs(float(found or 0) - float(expected)))
    return count, worst


def describe(one: Ratings, other: Ratings) -> None:
    """What the statistics say about a pair."""
    for name in one.measures:
        found = compare(one.column(name), other.column(name), Resampling(1000))
        told = found.statistics
        parts = [f"{each} {told[each]}" for each in ("pearson", "alpha_interval", "bias")]
        print(f"    {name:19} n {found.n:3}  {'  '.join(parts)}")


def pooled(found: dict[str, dict[str, dict[str, Analysis]]]) -> None:
    """All sets together: what a cheap oracle gains by a map onto the dearer one, on records it has not seen."""
    first: dict[str, Analysis] = {}
    second: dict[str, Analysis] = {}
    for models in found.values():
        cheap = next(name for name in models if "flash" in name)
        dear = next(name for name in models if name != cheap)
        first.update(models[dear])
        second.update(models[cheap])
    ids = sorted({*first} & {*second})
    one, other = rate("dear", CONFIG, ids, first), rate("cheap", CONFIG, ids, second)
    half = halves(ids, 42)
    print(f"  {len(ids)} records that both scored, all sets together")
    describe(one, other)
    for name in one.measures[:-1]:
        x, y = one.column(name), other.column(name)
        gains = []
        for kind in KINDS:
            mapped = equated(kind, y, x, half, (CONFIG.scale.minimum, CONFIG.scale.maximum))
            gains.append(f"{kind} {float(krippendorff_alpha(np.stack((x, mapped)))):.2f}")
        print(f"    {name:19} alpha {float(krippendorff_alpha(np.stack((x, y)))):.2f} -> {', '.join(gains)}")


def simulate(samples: int) -> None:
    """How often the interval of alpha holds the alpha of the population."""
    random = np.random.default_rng(1)

    def draw(n: int) -> tuple[Array, Array]:
        level = random.normal(5, 2, n)
        one, other = (np.clip(level + random.normal(more, 1.2, n), 0, 10).round() for more in (0.0, 0.8))
        return one, other

    truth = float(krippendorff_alpha(np.stack(draw(2_000_000))))
    print(f"alpha of the population {truth:.3f}, {samples} samples of each size, 1,000 resamples each")
    for n in (50, 100, 200, 500):
        held = below = 0
        for seed in range(samples):
            one, other = draw(n)

            def alpha(rows: Rows, one: Array = one, other: Array = other) -> dict[str, Array]:
                return {"alpha": krippendorff_alpha(np.stack((one[rows], other[rows]), -2))}

            found = resample(alpha, n, Resampling(1000, seed=seed))["alpha"]
            assert found.low is not None
            assert found.high is not None
            held += found.low <= truth <= found.high
            below += found.low <= truth
        print(f"  n {n:3}: within the interval in {held / samples:.1%}, above its lower end in {below / samples:.1%}")


def main() -> None:
    """Run what was asked for; the exit code is 1 when a figure is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="?")
    parser.add_argument("--simulate", type=int, metavar="N")
    words = parser.parse_args()
    failed = False
    if words.simulate:
        simulate(words.simulate)
    if words.scores:
        started = time.process_time()
        rows, found = read(words.scores)
        wrong = stored_scores(rows)
        print(f"{len(rows)} stored overall scores: {len(rows) - wrong} reproduced, {wrong} not")
        failed |= bool(wrong)
        for name, models in sorted(found.items()):
            ids = sorted({each for answers in models.values() for each in answers})
            ratings = {model: rate(model, CONFIG, ids, answers) for model, answers in models.items()}
            for one, other in combinations(sorted(ratings), 2):
                count, worst = worst_difference(ratings[one], ratings[other])
                alone = len(ratings[one].failed) + len(ratings[other].failed)
                print(f"  set {name}, {one} and {other}: {alone} one-sided records")
                print(f"    {count} statistics, largest difference from a peer {worst:.1e}")
                failed |= not worst <= TOLERANCE
        pooled(found)
        print(f"{time.process_time() - started:.1f} CPU seconds")
    sys.exit(failed)


if __name__ == "__main__":
    main()
