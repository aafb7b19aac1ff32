"""Cells, targets, the certificate and the solver: against brute force, for any prices, in any order of the rows."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocr_sprint.core.errors import UsageError
from ocr_sprint.ground_truth.cells import Cells, Coded, Margin, coded_as, compress, lot, merge_cells, pack, pick
from ocr_sprint.ground_truth.certificate import Demand, Problem, make_problem, most_valuable, upper_bound
from ocr_sprint.ground_truth.relaxation import _Program, _stride, relax
from ocr_sprint.ground_truth.solver import solve
from ocr_sprint.ground_truth.targets import extreme_shares, round_to_total, water_fill

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def coded(rows: npt.NDArray[Any], bins: int = 11) -> Coded:
    margins = tuple(Margin(f"d{j}", tuple(map(str, range(bins)))) for j in range(rows.shape[1]))
    return coded_as(margins, list(rows.T))


def correlated(n: int, dimensions: int, seed: int) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    scores = generator.normal(3, 2, (n, 1)) + generator.normal(0, 1.5, (n, dimensions))
    return np.clip(np.round(scores), 0, 10).astype(np.uint8)


def even(cells: Cells, size: int) -> Problem:
    demands = [Demand(j, water_fill(cells.histogram(j), size)) for j in range(len(cells.margins))]
    return make_problem(cells, demands, size)


def best_of_all(problem: Problem) -> float:
    """The greatest score, by trying every selection."""
    amounts = product(*(range(int(capacity) + 1) for capacity in problem.capacity))
    return max(problem.score(np.array(x, float)) for x in amounts if sum(x) == problem.size)


@st.composite
def small_problems(draw: st.DrawFn) -> Problem:
    """Up to six cells of up to three records, any targets, weights and utilities."""
    dimensions, bins = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    row = st.tuples(*[st.integers(0, bins - 1)] * dimensions)
    codes = sorted(draw(st.sets(row, min_size=1, max_size=6)))
    counts = draw(st.lists(st.integers(1, 3), min_size=len(codes), max_size=len(codes)))
    margins = tuple(Margin(f"d{j}", tuple(map(str, range(bins)))) for j in range(dimensions))
    cells = Cells(margins, np.array(codes, np.uint8).reshape(len(codes), dimensions), np.array(counts))
    targets = st.lists(st.integers(0, 5), min_size=bins, max_size=bins)
    weights = st.sampled_from([1.0, 1.0, 2.0, 20.0, 0.5])
    demands = [Demand(j, draw(targets), draw(weights)) for j in range(dimensions)]
    earns = draw(st.one_of(st.none(), st.lists(st.floats(0, 2), min_size=len(codes), max_size=len(codes))))
    utility = None if earns is None else np.array(earns)
    return make_problem(cells, demands, draw(st.integers(1, sum(counts))), utility)


@QUICK
@given(small_problems(), st.integers(0, 3))
def test_the_optimum_lies_between_score_and_bound(problem: Problem, seed: int) -> None:
    solution, best = solve(problem, seed), best_of_all(problem)
    assert solution.score == pytest.approx(problem.score(solution.amounts.astype(float)))
    assert solution.score <= best + 1e-9 <= solution.bound + 2e-9
    assert solution.amounts.sum() == problem.size
    assert (solution.amounts <= problem.capacity).all()
    assert (solution.amounts >= 0).all()
    assert upper_bound(problem, solution.prices) >= best - 1e-9


@QUICK
@given(small_problems(), st.integers(0, 2**32 - 1))
def test_any_prices_bound_the_optimum(problem: Problem, seed: int) -> None:
    best = best_of_all(problem)
    generator = np.random.default_rng(seed)
    for scale in (0.1, 1.0, 30.0):
        assert upper_bound(problem, generator.uniform(-scale, 2 * scale, len(problem.target))) >= best - 1e-9


def highs(problem: Problem, whole: bool) -> float:
    """The greatest score by HiGHS, of divisible or of whole records."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_matrix, eye, hstack

    cells, bins = len(problem.capacity), len(problem.target)
    place = problem.rows.T.ravel(), np.tile(np.arange(cells), problem.rows.shape[1])
    fills = hstack([-coo_matrix((np.ones(len(place[0])), place), (bins, cells)), eye(bins)])
    total = np.concatenate([np.ones(cells), np.zeros(bins)])[None, :]
    found = milp(
        -np.concatenate([problem.utility, problem.weight]),
        constraints=[LinearConstraint(fills, -np.inf, 0), LinearConstraint(total, problem.size, problem.size)],
        bounds=Bounds(0, np.concatenate([problem.capacity, problem.target])),
        integrality=np.concatenate([np.full(cells, int(whole)), np.zeros(bins)]),
        options={"mip_rel_gap": 0.0},
    )
    assert found.success
    return float(-found.fun)


@settings(QUICK, max_examples=40)
@given(small_problems())
def test_whole_records_are_bounded_as_highs_says(problem: Problem) -> None:
    best = highs(problem, whole=True)
    assert best == pytest.approx(best_of_all(problem))
    solution = solve(problem)
    assert solution.score - 1e-6 <= best <= solution.bound + 1e-6


@pytest.mark.parametrize("size", [1, 40, 300, 900])
@pytest.mark.parametrize("weight", [1.0, 20.0])
def test_the_relaxation_is_that_of_highs(size: int, weight: float) -> None:
    cells = compress(coded(correlated(1000, 4, 3)))
    demands = [Demand(j, water_fill(cells.histogram(j), size), weight if j == 2 else 1.0) for j in range(4)]
    problem = make_problem(cells, demands, size, np.random.default_rng(size).random(len(cells)))
    exact = highs(problem, whole=False)
    assert problem.score(relax(problem).amounts) == pytest.approx(exact, rel=1e-5)
    assert upper_bound(problem, relax(problem).prices) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("dimensions", [1, 2, 5, 8])
def test_products_are_sums_over_the_cells_in_their_order_to_the_last_bit(dimensions: int) -> None:
    problem, generator = even(compress(coded(correlated(900, dimensions, 4))), 90), np.random.default_rng(dimensions)
    cells, bins = problem.rows.shape[0], len(problem.target)
    program, scale, prices = _Program.of(problem), generator.random(cells + 2 * bins), generator.normal(size=bins + 1)
    pairs, fill = np.zeros((bins, bins)), problem.fill(scale[:cells])
    for row, one in zip(problem.rows, scale, strict=False):
        pairs[np.ix_(row, row)] += one
    np.fill_diagonal(pairs, fill + (scale[cells : cells + bins] + scale[cells + bins :]))
    normal = program.normal(scale)
    assert (normal[:bins, :bins] == pairs).all()
    assert (normal[:bins, bins] == fill).all()
    assert (normal == normal.T).all()
    worth = np.full(cells, prices[-1])
    for column in problem.rows.T:
        worth += prices[column]
    assert (program.backward(prices)[:cells] == worth).all()
    assert (program.forward(scale)[:bins] == fill - scale[cells : cells + bins] - scale[cells + bins :]).all()


@given(st.lists(st.tuples(st.floats(1e-300, 1e300), st.floats(-1e300, 1e300)), min_size=1))
def test_a_stride_ends_where_the_first_value_would_become_negative(pairs: list[tuple[float, float]]) -> None:
    value, change = np.array(pairs).T
    with np.errstate(over="ignore"):
        assert _stride(value, change) == min([1.0, *(-one / by for one, by in pairs if by < 0)])


@pytest.mark.parametrize("size", [1, 10, 100, 999, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_relaxed_score_and_bound_meet(size: int, seed: int) -> None:
    cells = compress(coded(correlated(1000, 5, seed)))
    problem = even(cells, size)
    relaxed = relax(problem)
    free = make_problem(cells, [Demand(j, [0] * 11) for j in range(5)], size)
    earned = problem.score(relaxed.amounts)
    proved = (problem.weight - relaxed.prices) @ problem.target + most_valuable(
        problem.values(relaxed.prices), problem.capacity, size
    )
    assert relaxed.amounts.sum() == pytest.approx(size, rel=1e-5)
    assert proved == pytest.approx(earned, rel=1e-5, abs=1e-4)
    assert relax(free).amounts.sum() == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize("size", [100, 500, 1000, 2000])
def test_the_gap_is_small(size: int) -> None:
    solution = solve(even(compress(coded(correlated(6000, 8, 5))), size))
    assert solution.gap <= (0.01 if size < 500 else 0.001)


def test_many_cells_are_solved_from_a_working_set() -> None:
    cells = compress(coded(correlated(60_000, 8, 2)))
    assert len(cells) > 22_000
    solution = solve(even(cells, 1000))
    assert solution.gap <= 0.001
    assert solution.amounts.sum() == 1000


DEGENERATE = {
    "all alike": np.zeros((50, 3), np.uint8),
    "one row": np.full((1, 2), 7, np.uint8),
    "one dimension": correlated(40, 1, 0),
    "two values": (correlated(60, 4, 1) > 3).astype(np.uint8) * 10,
    "many dimensions": correlated(80, 11, 3),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.99, 1.0])
def test_degenerate_corpora_are_solved(name: str, part: float) -> None:
    rows = DEGENERATE[name]
    size = max(1, int(part * len(rows)))
    problem = even(compress(coded(rows)), size)
    solution = solve(problem)
    assert solution.amounts.sum() == size
    assert solution.score <= solution.bound


def chosen_ids(rows: npt.NDArray[Any], ids: list[str], size: int, seed: int) -> set[str]:
    table = coded(rows)
    cells = compress(table)
    amounts = solve(even(cells, size), seed).amounts
    used = amounts > 0
    return {ids[row] for row in pick(table, ids, cells.codes[used], amounts[used], seed)}


@pytest.mark.parametrize("seed", [0, 7])
def test_the_order_of_the_rows_changes_nothing(seed: int) -> None:
    rows = correlated(3000, 4, 1)
    ids = [f"a{i}" for i in range(len(rows))]
    expected = chosen_ids(rows, ids, 300, seed)
    assert len(expected) == 300
    for shuffle in range(3):
        order = np.random.default_rng(shuffle).permutation(len(rows))
        assert chosen_ids(rows[order], [ids[i] for i in order], 300, seed) == expected
    assert chosen_ids(rows, ids, 300, seed + 1) != expected


@pytest.mark.parametrize("dimensions", [3, 25])
def test_parts_come_to_the_same_cells(dimensions: int) -> None:
    rows = correlated(500, dimensions, 4)
    whole = compress(coded(rows))
    merged = merge_cells([compress(coded(part)) for part in np.array_split(rows, 7)])
    assert (merged.codes == whole.codes).all()
    assert (merged.counts == whole.counts).all()
    assert merged.margins == whole.margins


def test_labels_of_parts_are_brought_together() -> None:
    one = compress(coded_as((Margin("tier", ("high", "low")),), [np.array([0, 0, 1])]))
    two = compress(coded_as((Margin("tier", ("low", "none")),), [np.array([0, 1, 1])]))
    merged = merge_cells([one, two])
    assert dict(zip(merged.margins[0].labels, merged.histogram(0), strict=True)) == {"high": 2, "low": 2, "none": 2}


@given(st.lists(st.tuples(*[st.integers(0, 10)] * 3), min_size=1, max_size=40), st.integers(0, 5))
def test_the_smallest_lots_are_picked(rows: list[tuple[int, int, int]], seed: int) -> None:
    table = coded(np.array(rows, np.uint8))
    ids = [str(i) for i in range(len(rows))]
    cells = compress(table)
    amounts = cells.counts // 2
    picked = pick(table, ids, cells.codes, amounts, seed)
    assert len(set(picked.tolist())) == len(picked) == amounts.sum()
    keys = pack(table)
    for key, amount in zip(np.unique(keys), amounts, strict=True):
        members = sorted(np.flatnonzero(keys == key), key=lambda row: lot(seed, ids[row]))
        assert set(members[:amount]) == set(picked.tolist()) & set(members)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.data())
def test_water_fill_is_as_even_as_it_can_be(available: list[int], data: st.DataObject) -> None:
    size = data.draw(st.integers(0, sum(available)))
    targets = water_fill(available, size)
    assert targets.sum() == size
    assert (targets <= available).all()
    below = targets[targets < available]
    if len(below):
        assert targets.max() <= below.min() + 1


@given(st.integers(1, 30), st.integers(0, 200))
def test_shares_fill_in_proportion(bins: int, size: int) -> None:
    shares = np.arange(bins, dtype=float)
    targets = water_fill([200] * bins, min(size, 200 * bins), shares)
    assert targets.sum() == min(size, 200 * bins)
    if bins > 1 and (targets < 200).all():
        exact = shares / shares.sum() * size
        assert (np.abs(targets - exact) <= 1).all()


@given(st.lists(st.floats(0, 20), min_size=1, max_size=9), st.integers(0, 60))
def test_rounding_keeps_to_total_and_limits(shares: list[float], total: int) -> None:
    limits = [int(share) + 3 for share in shares]
    if total < sum(int(share + 1e-9) for share in shares) or total > sum(limits):
        return
    whole = round_to_total(shares, total, limits)
    assert whole.sum() == total
    assert (whole <= limits).all()


def test_too_much_is_refused() -> None:
    with pytest.raises(UsageError, match="5 records are wanted and there are 3; ask for fewer"):
        water_fill([1, 2], 5)
    assert extreme_shares(11)[[0, 3]].tolist() == [0.1125, 0.1125]
