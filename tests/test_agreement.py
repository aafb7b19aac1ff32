"""The statistics of agreement against krippendorff, pingouin, scipy and scikit-learn, on fictitious scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import krippendorff
import numpy as np
import pandas as pd
import pingouin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import cohen_kappa_score, confusion_matrix, mean_absolute_error

from ocr_sprint.core.errors import DataError
from ocr_sprint.ground_truth.agreement import STATISTICS, Array, Level, krippendorff_alpha
from ocr_sprint.ground_truth.agreement_intervals import Interval, Resampling, compare, resample
from ocr_sprint.ground_truth.equating import KINDS, equated, fit_map, halves
from ocr_sprint.ground_truth.filters import load_filter
from ocr_sprint.ground_truth.tier_agreement import cohen_kappa, compare_tiers, tier_ranks

CONFIG = load_filter(Path("filters/uplifting/v1")).config
TOLERANCE = 1e-9


def scores(kind: str, n: int, seed: int) -> tuple[Array, Array]:
    "Two columns of fictitious scores of one kind."
    random = np.random.default_rng(seed)
    one = random.integers(0, 11, n).astype(float)
    noise = random.normal(0, 2, n)
    columns = {
        "whole": (one, np.clip(one + noise, 0, 10).round()),
        "biased": (np.minimum(one, 7), np.minimum(one, 7) + 2 + (random.random(n) < 0.3)),
        "fractions": (one + random.random(n), one + noise),
        "mostly zero": (one * (random.random(n) < 0.2), one * (random.random(n) < 0.2)),
        "unrelated": (one, random.integers(0, 11, n).astype(float)),
        "opposed": (one, 10 - one + (random.random(n) < 0.5)),
    }
    return columns[kind]


@pytest.fixture(params=["whole", "biased", "fractions", "mostly zero", "unrelated", "opposed"])
def pair(request: pytest.FixtureRequest) -> tuple[Array, Array]:
    return scores(request.param, 120, 7)


def test_correlations_and_errors_are_those_of_scipy_and_scikit_learn(pair: tuple[Array, Array]) -> None:
    one, other = pair
    difference = other - one
    reach = 1.96 * np.std(difference, ddof=1)
    expected = {
        "pearson": stats.pearsonr(one, other).statistic,
        "spearman": stats.spearmanr(one, other).statistic,
        "mae": mean_absolute_error(one, other),
        "bias": difference.mean(),
        "lower_limit": difference.mean() - reach,
        "upper_limit": difference.mean() + reach,
    }
    for name, value in expected.items():
        assert STATISTICS[name](one, other) == pytest.approx(value, abs=TOLERANCE), name


@pytest.mark.parametrize("kind", ["whole", "biased", "mostly zero", "unrelated", "opposed"])
def test_weighted_kappa_is_that_of_scikit_learn(kind: str) -> None:
    one, other = scores(kind, 150, 3)
    labels = [*range(12)]
    expected = cohen_kappa_score(one.astype(int), other.astype(int), labels=labels, weights="quadratic")
    assert STATISTICS["weighted_kappa"](one, other) == pytest.approx(expected, abs=TOLERANCE)


def test_intraclass_correlations_are_those_of_pingouin(pair: tuple[Array, Array]) -> None:
    n = len(pair[0])
    frame = pd.DataFrame({"text": [*range(n)] * 2, "oracle": ["a"] * n + ["b"] * n, "score": np.concatenate(pair)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pingouin.intraclass_corr(frame, targets="text", raters="oracle", ratings="score").set_index("Type")[
            "ICC"
        ]
    assert STATISTICS["icc_agreement"](*pair) == pytest.approx(peer["ICC(A,1)"], abs=1e-6)
    assert STATISTICS["icc_consistency"](*pair) == pytest.approx(peer["ICC(C,1)"], abs=1e-6)


@pytest.mark.parametrize("level", ["interval", "ordinal", "nominal"])
def test_alpha_is_that_of_krippendorff(pair: tuple[Array, Array], level: Level) -> None:
    ratings = np.stack(pair)
    expected = krippendorff.alpha(ratings, level_of_measurement=level)
    assert krippendorff_alpha(ratings, level) == pytest.approx(expected, abs=TOLERANCE)
    if level != "nominal":
        assert STATISTICS[f"alpha_{level}"](*pair) == pytest.approx(expected, abs=TOLERANCE)


@given(
    st.integers(2, 5).flatmap(
        lambda raters: st.lists(
            st.lists(st.one_of(st.none(), st.integers(0, 10)), min_size=raters, max_size=raters),
            min_size=4,
            max_size=25,
        )
    ),
    st.sampled_from(["interval", "ordinal", "nominal"]),
)
@settings(max_examples=150, deadline=None)
def test_alpha_with_gaps_is_that_of_krippendorff(rows: list[list[int | None]], level: Level) -> None:
    ratings = np.array([[np.nan if score is None else score for score in row] for row in rows], float).T
    paired = ratings[:, (~np.isnan(ratings)).sum(0) >= 2]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        if ratings.size and not np.isnan(ratings).all():
            assert np.isnan(krippendorff_alpha(ratings, level)), "nothing varies"
        return
    expected = krippendorff.alpha(ratings, level_of_measurement=level)
    assert krippendorff_alpha(ratings, level) == pytest.approx(expected, abs=TOLERANCE)


def test_tiers_are_those_of_scikit_learn() -> None:
    one, other = scores("fractions", 300, 5)
    one, other = np.clip(one, 0, 10), np.clip(other, 0, 10)
    ranks = [tier_ranks(CONFIG, each).astype(int) for each in (one, other)]
    found = compare_tiers(CONFIG, one, other, Resampling(100))
    order = [2, 1, 0]
    assert found.confusion == confusion_matrix(*ranks, labels=order).tolist()
    assert found.kappa.value == pytest.approx(cohen_kappa_score(*ranks), abs=TOLERANCE)
    assert found.weighted_kappa.value == pytest.approx(
        cohen_kappa_score(*ranks, labels=[0, 1, 2], weights="quadratic"), abs=TOLERANCE
    )
    ordinal = krippendorff.alpha(np.stack(ranks).astype(float), level_of_measurement="ordinal")
    assert found.alpha_ordinal.value == pytest.approx(ordinal, abs=TOLERANCE)
    assert found.same.value == pytest.approx(float(np.mean(ranks[0] == ranks[1])))
    for each in found.flips:
        assert each.upward == int(((one < each.threshold) & (other >= each.threshold)).sum())
        assert each.near <= each.upward + each.downward


def test_a_flip_of_a_tier_is_counted_once_for_each_threshold_between() -> None:
    found = compare_tiers(CONFIG, np.full(12, 3.9), np.full(12, 7.0), Resampling(100))
    assert [(each.threshold, each.upward, each.downward, each.near) for each in found.flips] == [
        (7.0, 12, 0, 0),
        (4.0, 12, 0, 0),
    ]
    assert found.kappa == Interval(0.0, 0.0, 0.0)
    assert found.same == Interval(0.0, 0.0, 0.0)


# Intervals


def test_a_seed_decides_the_interval_and_nothing_else_does() -> None:
    one, other = scores("whole", 80, 1)
    first = compare(one, other, Resampling(200, seed=4))
    assert compare(one, other, Resampling(200, seed=4)) == first
    again = compare(one, other, Resampling(200, seed=5))
    assert again.statistics["pearson"].value == first.statistics["pearson"].value
    assert again.statistics["pearson"].low != first.statistics["pearson"].low


def test_blocks_of_replicates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = scores("whole", 80, 1)
    whole = compare(one, other, Resampling(200))
    monkeypatch.setattr("ocr_sprint.ground_truth.agreement_intervals._BLOCK", 80 * 7)
    assert compare(one, other, Resampling(200)) == whole


def test_a_difference_on_the_same_texts_is_surer_than_either() -> None:
    one, other = scores("whole", 150, 1)
    third = other + np.random.default_rng(0).normal(0, 0.2, 150)
    pearson = STATISTICS["pearson"]

    def both(rows: np.ndarray) -> dict[str, Array]:
        first, second = pearson(one[rows], other[rows]), pearson(one[rows], third[rows])
        return {"first": first, "difference": second - first}

    found = resample(both, 150, Resampling(500))
    width = {name: (each.high or 0) - (each.low or 0) for name, each in found.items()}
    assert width["difference"] < width["first"] / 2


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    "200 samples of a population whose correlation is known; bench/agreement.py takes more, and alpha."
    random, held = np.random.default_rng(11), 0
    for seed in range(200):
        one = random.normal(0, 1, 100)
        other = 0.8 * one + 0.6 * random.normal(0, 1, 100)
        resampling = Resampling(300, seed=seed)
        found = resample(lambda rows, x=one, y=other: {"r": STATISTICS["pearson"](x[rows], y[rows])}, 100, resampling)[
            "r"
        ]
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.8 <= found.high
    assert 0.89 <= held / 200 <= 0.99


def nothing_varies() -> Iterator[tuple[str, Array, Array]]:
    yield "both constant", np.full(30, 4.0), np.full(30, 4.0)
    yield "constants apart", np.full(30, 4.0), np.full(30, 6.0)
    yield "one constant", np.full(30, 4.0), np.arange(30) % 7.0


@pytest.mark.parametrize(("one", "other"), [pytest.param(*rest, id=name) for name, *rest in nothing_varies()])
def test_what_has_no_meaning_is_none_and_warns_nobody(one: Array, other: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(one, other, Resampling(100)).statistics
    assert found["pearson"] == found["spearman"] == Interval()
    assert found["mae"].value == pytest.approx(np.abs(one - other).mean())
    assert (found["alpha_interval"].value is None) == bool(np.ptp(np.concatenate((one, other))) == 0)


def test_too_few_records() -> None:
    few = compare(np.arange(9.0), np.arange(9.0), Resampling())
    assert (few.n, few.statistics) == (9, {})
    with pytest.raises(DataError, match="9 records are too few for an interval; 10 are needed"):
        resample(dict, 9, Resampling())


def test_kappa_without_chance_has_no_meaning() -> None:
    assert np.isnan(cohen_kappa(np.ones(20), np.ones(20), 3))
    assert cohen_kappa(np.zeros(20), np.ones(20), 3) == 0


# Equating


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_never_falls_and_never_leaves_the_scale(kind: str) -> None:
    for name in ("whole", "unrelated", "opposed", "mostly zero"):
        one, other = scores(name, 90, 2)
        mapped = fit_map(kind, other, one, (0, 10))(np.linspace(-5, 15, 200))  # type: ignore[arg-type]
        assert (np.diff(mapped) >= -1e-9).all()
        assert mapped.min() >= 0
        assert mapped.max() <= 10


def test_isotonic_is_that_of_scikit_learn() -> None:
    one, other = scores("whole", 90, 2)
    peer = IsotonicRegression(out_of_bounds="clip").fit(other, one)
    points = np.linspace(0, 10, 41)
    np.testing.assert_allclose(fit_map("isotonic", other, one, (0, 10))(points), peer.predict(points), atol=1e-3)


def test_a_map_is_judged_on_what_it_has_not_seen() -> None:
    "A record whose own score is changed does not move its own mapped score."
    one, other = scores("whole", 60, 2)
    first = halves([f"a-{n}" for n in range(60)], 3)
    before = equated("isotonic", other, one, first, (0, 10))
    changed = one.copy()
    changed[7] = 10 - changed[7]
    after = equated("isotonic", other, changed, first, (0, 10))
    same_half = first == first[7]
    np.testing.assert_array_equal(before[same_half], after[same_half])
    assert (before[~same_half] != after[~same_half]).any()


def test_the_halves_do_not_depend_on_the_order() -> None:
    ids = [f"a-{n}" for n in range(101)]
    found = dict(zip(ids, halves(ids, 9), strict=True))
    assert dict(zip(ids[::-1], halves(ids[::-1], 9), strict=True)) == found
    assert sum(found.values()) == 50
    assert halves(ids, 10).tolist() != halves(ids, 9).tolist()
