"""Coverage: against numpy, from parts, on degenerate corpora, and as reports whose size does not grow."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocr_sprint.core.report import to_html, to_markdown
from ocr_sprint.ground_truth.cells import code_records, compress, merge_cells
from ocr_sprint.ground_truth.coverage import Coverage, Thresholds, analyze, cover, ranges
from ocr_sprint.ground_truth.coverage_report import comparison_report, coverage_report
from ocr_sprint.ground_truth.scores import ScoreScale, find_layout
from ocr_sprint.ground_truth.select import select
from ocr_sprint.ground_truth.strategies import Wish
from ocr_sprint.ground_truth.summary import merge, summarise
from ocr_sprint.ground_truth.table import Account, Column, Records, Source
from ocr_sprint.tools.cli import main


def corpus(scores: Any, tiers: list[str] | None = None, scale: ScoreScale | None = None) -> Records:
    rows, scale = np.asarray(scores, float), scale or ScoreScale()
    layout = find_layout([{"id": "a", **{f"d{j}": scale.low for j in range(rows.shape[1])}}], scale=scale)
    columns = {} if tiers is None else {"tier": Column.of(tiers)}
    ticks = np.round((rows - scale.low) * scale.fine).astype(np.int16)
    places = [np.zeros(len(rows), np.int64)] * 4
    return Records(layout, (Source(Path("a"), ""),), [f"a{i}" for i in range(len(rows))], ticks, columns, *places)


def covered(records: Records, **options: Any) -> Coverage:
    return analyze(records, Account(read=len(records)), **options)


def skewed(count: int) -> Any:
    generator = np.random.default_rng(2)
    return np.clip(np.round(generator.normal(3, 2, (count, 1)) + generator.normal(0, 1, (count, 4)), 1), 0, 10)


def test_figures_are_those_of_numpy() -> None:
    scores = skewed(2000)
    found = covered(corpus(scores))
    for index, entry in enumerate(found.dimensions):
        column = scores[:, index]
        quartiles = np.quantile(column, [0.25, 0.5, 0.75], method="inverted_cdf")
        assert [entry.first_quartile, entry.median, entry.third_quartile] == pytest.approx(quartiles)
        assert entry.iqr == pytest.approx(quartiles[2] - quartiles[0])
        assert (entry.mean, entry.deviation) == pytest.approx((column.mean(), column.std()), abs=1e-5)
        expected = np.bincount(np.floor(column + 0.5 + 1e-9).astype(int), minlength=11)
        assert [part.count for part in entry.distribution] == expected.tolist()
        assert entry.between == int((np.abs(column - np.round(column)) > 1e-6).sum())
    assert np.array(found.correlations) == pytest.approx(np.corrcoef(scores.T), abs=1e-5)


def test_parts_add_up_to_the_whole() -> None:
    records = corpus(skewed(900), tiers=["x", "y", "z"] * 300)
    parts = [records.take(np.arange(start, 900, 4)) for start in range(4)]
    summary = merge([summarise(part.layout.scale, part.ticks) for part in parts])
    cells = merge_cells([compress(code_records(part)) for part in parts])
    assert cover(records.layout, summary, cells, Account(read=900)) == covered(records)


def test_gaps_and_redundancy_are_seen() -> None:
    base = np.arange(1000) % 5
    found = covered(corpus(np.column_stack([base, base, (np.arange(1000) * 7) % 11])))
    assert found.dimensions[0].missing == ("5-10",)
    assert found.dimensions[2].missing == ()
    assert [(pair.one, pair.other) for pair in found.redundant] == [("d0", "d1")]
    pair = next(pair for pair in found.pairs if (pair.one, pair.other) == ("d0", "d1"))
    assert "low/high" in pair.empty
    assert sum(map(sum, pair.counts)) == 1000


def test_gates_follow_the_thresholds() -> None:
    scores = np.repeat([1, 5, 9], [500, 99, 49])[:, None]
    tiers = ["a"] * 420 + ["b"] * 228
    found = covered(corpus(scores, tiers))
    assert [(gate.level, gate.finding) for gate in found.gates] == [
        ("fail", "d0: 49 records with high scores, at least 50 are wanted"),
        ("warn", "d0: 99 records with middle scores, 100 are wanted"),
        ("warn", "tier a: 65% of the records, at most 60% are wanted"),
    ]
    other = covered(corpus(scores, tiers), limits=Thresholds(few=200, some=300))
    assert other.gates[0].finding == "d0: 99 records with middle scores, at least 200 are wanted"
    lenient = covered(corpus(scores, tiers), limits=Thresholds(few=1, some=2, many=0.9, most=0.95))
    assert [gate.level for gate in lenient.gates] == ["ok"]


def test_the_scarcest_scores_are_wanted_first() -> None:
    found = covered(corpus(np.repeat([0, 1, 2, 9], [500, 500, 300, 3])[:, None]), size=110)
    assert {wanted.score for wanted in found.label_next} == {"3", "4", "5", "6", "7", "8", "9", "10"}
    assert found.label_next[0].missing == 10
    assert found.label_next[-1].score == "9"
    assert found.label_next[-1].missing == 7


def test_a_report_begins_with_what_to_do() -> None:
    scores = np.column_stack([np.repeat([0, 1, 2, 9], [500, 500, 300, 3])] * 2)
    found = covered(corpus(scores), size=110)
    first = coverage_report(found).sections[0]
    assert first.title == "What to do next"
    steps = str(first.parts[0]).split("\n")
    assert steps[0] == "- **Label** about 77 more records with `d0` 3-10: there are 3."
    assert "ocr_sprint select_training_set --target-size 110" in steps[2]
    assert "`d0` and `d1` are one question asked twice: their correlation is 1.00." in steps[3]
    assert found.even == pytest.approx(33 / 110)
    assert found.even <= found.even_bound


@pytest.mark.parametrize("more", [[], ["--dimensions", "wonder,agency", "--scale", "0", "5"]], ids=["found", "named"])
def test_the_advised_command_works_as_it_is_printed(more: list[str], tmp_path: Path) -> None:
    labels = tmp_path / "it's `mine`" / "my labels; $x.jsonl"
    labels.parent.mkdir()
    rows = ({"id": f"a{n}", "x_analysis": {"agency": n % 5, "wonder": n // 60 % 5}} for n in range(300))
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = tmp_path / "coverage.json"
    assert main(["analyze_coverage", "--labeled-file", str(labels), "--output", str(report), *more]) == 0
    line = next(line for line in report.with_suffix(".md").read_text().splitlines() if "select_training_set" in line)
    command = line.partition("**: `")[2].partition("`. The most even")[0]
    assert shlex.split(command)[-2:] == ["--target-size", "75"]
    assert main([*shlex.split(command)[1:], "--output-dir", str(tmp_path / "training")]) == 0
    made = json.loads((tmp_path / "training/manifest.json").read_text())
    assert sum(split["records"] for split in made["splits"].values()) == 75
    assert made["dimensions"] == (["wonder", "agency"] if more else ["agency", "wonder"])
    assert made["scale"] == ([0, 5] if more else [0, 10])


def test_a_corpus_that_covers_everything_wants_nothing() -> None:
    scores = np.array([[a, b] for a in range(11) for b in range(11)] * 20)
    assert covered(corpus(scores), size=110).label_next == ()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 3).flatmap(
        lambda d: st.lists(st.lists(st.integers(0, 20), min_size=d, max_size=d), min_size=1, max_size=25)
    )
)
def test_any_corpus_has_a_report(halves: list[list[int]]) -> None:
    records = corpus(np.array(halves) / 2, tiers=["x"] * len(halves))
    found = covered(records)
    assert Coverage.model_validate(json.loads(found.model_dump_json())) == found
    assert to_markdown(coverage_report(found)).startswith("# Coverage\n")
    selection = select(records, Wish(max(1, len(halves) // 2)))
    after = covered(records.take(selection.rows))
    assert "## Spread" in to_markdown(comparison_report(selection, found, after))


@pytest.mark.parametrize("scale", [ScoreScale(0, 1), ScoreScale(1, 10)])
def test_other_scales(scale: ScoreScale) -> None:
    values = np.linspace(scale.low, scale.high, 50)[:, None]
    found = covered(corpus(values, scale=scale))
    assert (found.dimensions[0].lowest, found.dimensions[0].highest) == (scale.low, scale.high)
    assert sum(part.count for part in found.dimensions[0].distribution) == 50


def test_the_page_does_not_grow_with_the_records() -> None:
    pages = []
    for count in (500, 50_000):
        records = corpus(np.round(skewed(count)))
        found = covered(records, size=100)
        selection = select(records, Wish(100))
        after = covered(records.take(selection.rows))
        pages.append(len(to_html(coverage_report(found))) + len(to_html(comparison_report(selection, found, after))))
    assert abs(pages[1] - pages[0]) < 5000


def test_ranges_are_named() -> None:
    assert ranges("abc", [True, True, True]) == ("a-c",)
    assert ranges("abc", [False] * 3) == ()
