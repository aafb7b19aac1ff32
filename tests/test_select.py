"""Selections: every strategy and option, score and bound, and that nothing but the records decides who is chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocr_sprint.core.cluster import local_cluster
from ocr_sprint.core.errors import UsageError
from ocr_sprint.ground_truth.cells import compress
from ocr_sprint.ground_truth.in_duckdb import select_in_duckdb
from ocr_sprint.ground_truth.records import read_records
from ocr_sprint.ground_truth.scores import find_layout
from ocr_sprint.ground_truth.select import Selection, code_pool, make_plan, select
from ocr_sprint.ground_truth.spread_out import select_spread_out
from ocr_sprint.ground_truth.strategies import Strategy, Wish
from ocr_sprint.ground_truth.table import Column, Records, Source

STRATEGIES = get_args(Strategy)


def corpus(scores: Any, tiers: list[str] | None = None, sources: list[str] | None = None) -> Records:
    """Records with these scores."""
    rows = np.asarray(scores, float)
    names = [f"d{j}" for j in range(rows.shape[1])]
    layout = find_layout([{"id": "a", **dict.fromkeys(names, 1)}])
    columns = {"tier": tiers, "source": sources}
    return Records(
        layout,
        (Source(Path("labeled.jsonl"), ""),),
        [f"a{index}" for index in range(len(rows))],
        (rows * 1000).astype(np.int16),
        {name: Column.of(texts) for name, texts in columns.items() if texts is not None},
        np.zeros(len(rows), np.int16),
        *[np.zeros(len(rows), np.int64)] * 3,
    )


def skewed(count: int, seed: int = 0) -> Records:
    generator = np.random.default_rng(seed)
    scores = np.clip(np.round(generator.normal(3, 2, (count, 1)) + generator.normal(0, 1.5, (count, 4))), 0, 10)
    tiers = ["impact" if mean > 6 else "connection" if mean > 3 else "other" for mean in scores.mean(axis=1)]
    sources = [("antara", "antara", "detik", "tempo")[index] for index in generator.integers(0, 4, count)]
    return corpus(scores, tiers, sources)


def errors_of(records: Records) -> Any:
    return np.array([(hash_of(found) % 50) / 10 for found in records.ids])


def hash_of(text: str) -> int:
    return sum(ord(letter) * 31**place for place, letter in enumerate(text))


def checked(selection: Selection, records: Records) -> Selection:
    assert len(selection.rows) == len(set(selection.rows.tolist())) == selection.wish.size
    assert selection.rows.min() >= 0
    assert selection.rows.max() < len(records)
    assert selection.score <= selection.bound + 1e-9
    for entry in selection.bins:
        assert entry.chosen <= entry.available
    for margin in {entry.margin for entry in selection.bins}:
        mine = [entry for entry in selection.bins if entry.margin == margin]
        assert sum(entry.chosen for entry in mine) == sum(entry.target for entry in mine) == selection.wish.size
        assert sum(entry.asked for entry in mine) == pytest.approx(selection.wish.size)
    return selection


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_the_rows_changes_no_id(strategy: Strategy) -> None:
    records = skewed(1500)
    wish = Wish(200, strategy, floor=3, blend=0.2 if strategy != "raking" else 0.0)
    selection = checked(select(records, wish, errors_of(records)), records)
    order = np.random.default_rng(5).permutation(len(records))
    moved = records.take(order)
    again = checked(select(moved, wish, errors_of(moved)), moved)
    assert again.digest == selection.digest
    assert (again.score, again.bound) == pytest.approx((selection.score, selection.bound))


OPTIMISED = ["maximize_coverage", "iqr_optimization", "balanced_tiers", "extreme_focus", "active_learning"]


@pytest.mark.parametrize("strategy", OPTIMISED)
@pytest.mark.parametrize("size", [500, 1000])
def test_the_gap_is_below_a_thousandth(strategy: Strategy, size: int) -> None:
    records = skewed(4000)
    assert select(records, Wish(size, strategy), errors_of(records)).gap <= 0.001


def test_another_seed_chooses_others_of_the_same_quality() -> None:
    records = skewed(3000)
    one, other = (select(records, Wish(300, seed=seed)) for seed in (1, 2))
    assert one.digest != other.digest
    assert one.score == pytest.approx(other.score, abs=0.002)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=8),
    st.sampled_from(OPTIMISED),
    st.data(),
)
def test_no_selection_is_better_than_the_bound(
    halves: list[tuple[int, int]], strategy: Strategy, data: st.DataObject
) -> None:
    records = corpus(np.array(halves) / 2, tiers=["high" if a > 10 else "low" for a, _ in halves])
    size = data.draw(st.integers(1, len(halves)))
    wish, errors = Wish(size, strategy), errors_of(records)
    selection = checked(select(records, wish, errors), records)
    coded = code_pool(records, wish, errors)
    cells = compress(coded)
    plan = make_plan(cells, wish, 10.0)
    cell_of = {tuple(codes): index for index, codes in enumerate(cells.codes)}
    where = [cell_of[tuple(codes)] for codes in coded.codes]
    problem, soft = plan.problem, plan.soft
    found = []
    for rows in combinations(range(len(halves)), size):
        amounts = np.bincount([where[row] for row in rows], minlength=len(cells)).astype(float)
        hard = float(problem.weight[soft:] @ np.minimum(problem.fill(amounts), problem.target)[soft:])
        found.append((hard, problem.score(amounts) - hard))
    best = max(found)[1]
    assert selection.score <= best / plan.wanted + 1e-9 <= selection.bound + 2e-9


def weighted_share(selection: Selection, rows: Any, records: Records) -> float:
    """The part of the places that these rows fill, by their weights, from the scores and tiers themselves."""
    codes = {f"d{j}": [f"{score:g}" for score in column] for j, column in enumerate(np.floor(records.scores() + 0.5).T)}
    codes["tier"] = [records.columns["tier"].names[code] for code in records.columns["tier"].codes]
    heavy = 20 * max(selection.wish.weights.get(name, 1.0) for name in ("d0", "d1"))
    first = {"tier": heavy} if selection.wish.strategy == "balanced_tiers" else {}
    filled = wanted = 0.0
    for entry in selection.bins:
        weight = selection.wish.weights.get(entry.margin, 1.0) * first.get(entry.margin, 1.0)
        there = sum(codes[entry.margin][row] == entry.label for row in rows)
        filled += weight * min(there, entry.target)
        wanted += weight * entry.target
    return filled / wanted


WEIGHED = st.dictionaries(st.sampled_from(["d0", "d1", "tier"]), st.sampled_from([0.01, 0.3, 1, 2, 7.5, 100]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=8),
    st.sampled_from(["maximize_coverage", "extreme_focus", "balanced_tiers", "random", "raking"]),
    WEIGHED,
    st.data(),
)
def test_the_score_is_the_weighted_share_of_places_and_its_bound_holds_for_all(
    halves: list[tuple[int, int]], strategy: Strategy, weights: dict[str, float], data: st.DataObject
) -> None:
    records = corpus(np.array(halves) / 2, tiers=["high" if a > 10 else "low" for a, _ in halves])
    size = data.draw(st.integers(1, len(halves)))
    blend = data.draw(st.sampled_from([0.0, 0.5])) if strategy not in ("random", "raking") else 0.0
    selection = checked(select(records, Wish(size, strategy, blend=blend, weights=weights)), records)
    assert selection.score == pytest.approx(weighted_share(selection, selection.rows, records))
    if blend:
        return
    best = max(weighted_share(selection, rows, records) for rows in combinations(range(len(halves)), size))
    assert selection.score <= best + 1e-9 <= selection.bound + 2e-9


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=4, max_size=9), WEIGHED, st.data())
def test_weights_outweigh_no_floor(rows: list[tuple[int, int]], weights: dict[str, float], data: st.DataObject) -> None:
    records = corpus(rows, tiers=["x"] * len(rows))
    size = data.draw(st.integers(1, len(rows)))
    wish = Wish(size, "extreme_focus", floor=1, weights=weights)
    selection, scores = checked(select(records, wish), records), records.scores()

    def below(chosen: Any) -> int:
        return sum(len(set(scores[:, j])) - len(set(scores[list(chosen), j])) for j in range(2))

    fewest = min(below(chosen) for chosen in combinations(range(len(rows)), size))
    assert selection.unmet == below(selection.rows.tolist()) == fewest


WEIGHTS = {"d0": 5.0, "d2": 0.2, "tier": 3.0}


@pytest.mark.parametrize("strategy", OPTIMISED)
def test_the_gap_is_below_a_thousandth_with_weights(strategy: Strategy) -> None:
    records = skewed(2000)
    for weights in (WEIGHTS, {"d1": 100.0, "d3": 0.01}, dict.fromkeys(("d0", "d1", "d2", "d3", "tier"), 0.01)):
        assert select(records, Wish(500, strategy, weights=weights), errors_of(records)).gap <= 0.001


def test_a_dimension_of_more_weight_is_filled_better() -> None:
    records = skewed(1500)

    def filled(name: str, selection: Selection) -> int:
        return sum(min(entry.chosen, entry.target) for entry in selection.bins if entry.margin == name)

    plain = select(records, Wish(400, "extreme_focus"))
    for name in ("d0", "d3"):
        heavy = select(records, Wish(400, "extreme_focus", weights={name: 20.0}))
        assert filled(name, heavy) > filled(name, plain)


def test_tiers_stay_first_beside_heavy_dimensions() -> None:
    records = skewed(3000)
    weights = {"d0": 100.0, "d1": 100.0}
    selection = checked(select(records, Wish(300, "balanced_tiers", weights=weights)), records)
    assert all(entry.chosen == entry.target for entry in selection.bins if entry.margin == "tier")


EARLIER = {  # digest, score and bound of these wishes before there were weights
    "maximize_coverage": ("b0e75d3c5e24eadd", 0.9995, 1.0),
    "iqr_optimization": ("345ebf0f2969a5ed", 0.873, 0.873),
    "balanced_tiers": ("b0e75d3c5e24eadd", 0.9998958333333333, 1.0),
    "extreme_focus": ("a23019da236b9d47", 0.937, 0.937),
    "active_learning": ("f2e191e8888bc2a1", 1.7391000000000003, 1.7391187499999996),
    "raking": ("67894073d0b0d2dc", 0.935, 1.0),
    "random": ("e681d498f35dbe57", 0.782, 1.048),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("weights", [{}, {"d1": 1.0, "tier": 1}])
def test_without_weights_all_is_as_it_was(strategy: Strategy, weights: dict[str, float]) -> None:
    records = skewed(1500)
    wish = Wish(400, strategy, floor=5, source_cap=150, weights=weights)
    made = select(records, wish, errors_of(records))
    digest, *proof = EARLIER[strategy]
    assert made.digest[:16] == digest
    assert [made.score, made.bound] == pytest.approx(proof)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=9), st.data())
def test_no_selection_has_wider_quartiles(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    records = corpus(rows)
    size = data.draw(st.integers(1, len(rows)))
    selection = checked(select(records, Wish(size, "iqr_optimization")), records)
    scores = records.scores()
    width = {chosen: iqrs(scores[list(chosen)]) for chosen in combinations(range(len(rows)), size)}
    assert selection.width is not None
    assert selection.width.reached == width[tuple(selection.rows.tolist())]
    assert selection.width.reached <= max(width.values()) <= selection.width.proven


def iqrs(scores: Any) -> float:
    low, high = np.quantile(scores, [0.25, 0.75], axis=0, method="inverted_cdf")
    return float((high - low).sum())


@pytest.mark.parametrize("options", [{}, {"floor": 6}, {"source_cap": 105}, {"blend": 0.3}])
def test_quartiles_are_as_wide_as_conditions_allow(options: dict[str, Any]) -> None:
    records = skewed(2500)
    wide = checked(select(records, Wish(200, "iqr_optimization", **options)), records)
    covered = select(records, Wish(200, **options))
    assert wide.width is not None
    assert wide.width.proven - 1 <= wide.width.reached == iqrs(records.scores()[wide.rows])
    assert wide.width.reached > iqrs(records.scores()[covered.rows])
    assert wide.unmet == 0
    assert np.bincount(records.columns["source"].codes[wide.rows]).max() <= options.get("source_cap", 200)


def test_many_cells_keep_their_quartiles() -> None:
    generator = np.random.default_rng(3)
    records = corpus(np.clip(np.round(generator.normal(4, 3, (40_000, 6))), 0, 10))
    wide = select(records, Wish(500, "iqr_optimization"))
    assert wide.width is not None
    assert iqrs(records.scores()[wide.rows]) == wide.width.reached
    assert wide.width.reached >= 0.9 * wide.width.proven


def test_extremes_are_asked_for_nine_tenths() -> None:
    generator = np.random.default_rng(0)
    records = corpus(generator.integers(0, 11, (4000, 3)))
    selection = checked(select(records, Wish(400, "extreme_focus")), records)
    scores = records.scores()[selection.rows]
    assert selection.score == selection.bound == 1.0
    assert ((scores <= 3) | (scores >= 8)).mean() == pytest.approx(0.9, abs=0.005)


def test_tiers_are_balanced_first() -> None:
    records = skewed(3000)
    selection = checked(select(records, Wish(300, "balanced_tiers")), records)
    tiers = {entry.label: entry for entry in selection.bins if entry.margin == "tier"}
    assert all(entry.chosen == entry.target for entry in tiers.values())
    assert max(entry.chosen for entry in tiers.values()) - min(entry.chosen for entry in tiers.values()) <= 1


def test_error_is_weighed_against_coverage() -> None:
    records = skewed(2000)
    errors = errors_of(records)
    made = [select(records, Wish(200, "active_learning", error_weight=weight), errors) for weight in (0, 1, 100)]
    means = [selection.mean_error or 0.0 for selection in made]
    assert means == sorted(means)
    assert [made[0].coverage, made[1].coverage] > [made[1].coverage, made[2].coverage]
    assert means[2] == pytest.approx(np.sort(errors)[-200:].mean(), abs=0.05)


def test_floors_hold_where_there_are_enough() -> None:
    records = skewed(3000)
    selection = checked(select(records, Wish(250, "extreme_focus", floor=8)), records)
    assert selection.unmet == 0
    assert all(entry.chosen >= min(8, entry.available) for entry in selection.bins if entry.margin.startswith("d"))


def test_a_cap_is_no_floor_that_was_missed() -> None:
    assert select(skewed(2000), Wish(300, source_cap=105)).unmet == 0


def test_floors_that_cannot_all_be_met_are_counted() -> None:
    records = corpus([[j % 11, (3 * j) % 11] for j in range(200)])
    assert checked(select(records, Wish(15, floor=5)), records).unmet > 0


@pytest.mark.parametrize("strategy", ["maximize_coverage", "random", "active_learning"])
@pytest.mark.parametrize("blend", [0.0, 0.5])
def test_a_source_keeps_to_its_cap(strategy: Strategy, blend: float) -> None:
    records = skewed(2000)
    wish = Wish(300, strategy, source_cap=105, blend=blend)
    selection = checked(select(records, wish, errors_of(records)), records)
    assert np.bincount(records.columns["source"].codes[selection.rows]).max() <= 105


def test_a_blend_keeps_the_drawn_records() -> None:
    records = skewed(2000)
    drawn = set(select(records, Wish(100, "random")).rows.tolist())
    assert drawn <= set(select(records, Wish(200, blend=0.5)).rows.tolist())


def test_random_and_raked_selections_know_what_they_cost() -> None:
    records = skewed(3000)
    covered, raked, random = (select(records, Wish(300, name)) for name in ("maximize_coverage", "raking", "random"))
    assert covered.bound == pytest.approx(random.bound)
    assert random.score < raked.score < covered.score
    assert raked.chances is not None
    assert ((raked.chances > 0) & (raked.chances <= 1)).all()


def test_shortfalls_say_why() -> None:
    alike = [[score, score] for score in (0, 1, 2, 3) for _ in range(100)]
    records = corpus([*alike, [10, 0]])
    selection = checked(select(records, Wish(44)), records)
    reasons = {(entry.margin, entry.label): entry.reason for entry in selection.bins}
    assert reasons["d0", "10"] == "availability"
    assert reasons["d0", "7"] == "availability"
    assert reasons["d0", "2"] == ""
    opposed = corpus([[0, 10]] * 50 + [[10, 0]] * 2 + [[10, 10]] * 50)
    bins = {(e.margin, e.label): e for e in select(opposed, Wish(40)).bins}
    assert bins["d1", "0"].reason == "availability"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(3000), "3000 records are wanted and 1000 can be used"),
        (Wish(10, "active_learning"), "active_learning needs --model-predictions"),
        (Wish(10, weights={"d0": 2, "joy": 3}), "there is no 'joy' to give a weight; there are d0, d1, d2, d3, tier"),
        (Wish(900, source_cap=100), "with 100 per source there are 300 records; 900 are wanted"),
    ],
)
def test_what_cannot_be_is_refused(wish: Wish, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select(skewed(1000), wish)


def test_tiers_and_sources_must_be_there() -> None:
    records = corpus(np.zeros((5, 2)))
    with pytest.raises(UsageError, match="balanced_tiers needs tiers"):
        select(records, Wish(2, "balanced_tiers"))
    with pytest.raises(UsageError, match="a cap per source needs sources"):
        select(records, Wish(2, source_cap=1))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [1, 6, 7])
def test_tiny_and_uniform_corpora(strategy: Strategy, size: int) -> None:
    for scores in (np.zeros((7, 1)), np.arange(7.0)[:, None], np.full((7, 3), 9.5)):
        records = corpus(scores, tiers=["x"] * 7)
        checked(select(records, Wish(size, strategy), errors_of(records)), records)


def parted(folder: Path, whole: Records, parts: int) -> list[Path]:
    """The records dealt to files, as labels."""
    paths = [folder / f"part{number}.jsonl" for number in range(parts)]
    for number, path in enumerate(paths):
        rows = range(number, len(whole), parts)
        path.write_text("".join(json.dumps(line_of(whole, row)) + "\n" for row in rows))
    return paths


def predicted(path: Path, whole: Records, errors: Any) -> Path:
    """Predictions that are off by these errors."""
    rows = zip(whole.ids, whole.scores(), errors, strict=True)
    lines = [{"id": found, **{f"d{j}": value + error for j, value in enumerate(row)}} for found, row, error in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_number_of_parts_changes_no_id(tmp_path: Path, parts: int, strategy: Strategy) -> None:
    whole = skewed(700)
    errors = np.arange(700) % 9 / 2
    guesses = predicted(tmp_path / "predictions", whole, errors) if strategy == "active_learning" else None
    wish = Wish(150, strategy, floor=2, source_cap=60, blend=0.2 if parts == 2 and strategy != "raking" else 0.0)
    wish = replace(wish, weights=WEIGHTS if parts == 7 else {})
    spread = select_spread_out(parted(tmp_path, whole, parts), wish, predictions=guesses)
    alone = checked(select(whole, wish, None if guesses is None else errors), whole)
    assert spread.selection.digest == alone.digest
    assert (spread.selection.score, spread.selection.bound) == (alone.score, alone.bound)
    assert (spread.selection.mean_error, spread.selection.width) == (pytest.approx(alone.mean_error), alone.width)
    assert sorted(spread.records.ids) == sorted(whole.ids[row] for row in alone.rows)
    assert spread.account.used == 700
    if alone.chances is not None and spread.selection.chances is not None:
        known = dict(zip((whole.ids[row] for row in alone.rows), alone.chances, strict=True))
        assert spread.selection.chances.tolist() == [known[found] for found in spread.records.ids]


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "active_learning"])
def test_duckdb_chooses_the_same_ids(tmp_path: Path, strategy: Strategy) -> None:
    whole = skewed(700)
    paths = parted(tmp_path, whole, 3)
    paths[1].write_text("\n".join(paths[1].read_text().splitlines()[:-5]) + "\n" + paths[0].read_text() + "{\n")
    records, account = read_records(paths, sidecar=False)
    for wish in (Wish(150, strategy, floor=2), Wish(90, strategy, source_cap=40, seed=7, weights=WEIGHTS)):
        in_sql, alone = select_in_duckdb(paths, wish), select(records, wish)
        assert in_sql.selection.digest == alone.digest
        assert (in_sql.selection.score, in_sql.selection.bound) == (alone.score, alone.bound)
        assert in_sql.account == account
        chosen = {found: row for row, found in enumerate(in_sql.records.ids)}
        for row in alone.rows:
            mine = chosen[records.ids[row]]
            assert in_sql.records.ticks[mine].tolist() == records.ticks[row].tolist()
            assert in_sql.records.where(mine) == records.where(int(row))
            assert in_sql.records.offset[mine] == records.offset[row]


def test_processes_and_a_dask_cluster_choose_the_same_ids(tmp_path: Path) -> None:
    whole = skewed(600)
    errors = np.arange(600) % 7 / 2
    paths, guesses = parted(tmp_path, whole, 3), predicted(tmp_path / "predictions", whole, errors)
    wishes = [Wish(120), Wish(100, "iqr_optimization"), Wish(90, "active_learning"), Wish(80, "raking", floor=2)]
    expected = [select(whole, wish, errors).digest for wish in wishes]
    with local_cluster(processes=2) as client:
        on_dask = [select_spread_out(paths, wish, predictions=guesses, client=client) for wish in wishes]
    assert [made.selection.digest for made in on_dask] == expected
    assert select_spread_out(paths, wishes[0], processes=2).selection.digest == expected[0]


def line_of(records: Records, row: int) -> dict[str, Any]:
    scores = dict(zip(records.layout.dimensions, records.scores()[row].tolist(), strict=True))
    texts = {name: column.names[column.codes[row]] for name, column in records.columns.items()}
    return {"id": records.ids[row], **texts, **scores}
