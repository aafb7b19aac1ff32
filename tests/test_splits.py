"""Splits: exact sizes, the shape of the whole, no group in two of them; duplicates are found through OCR's faults."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocr_sprint.core.errors import UsageError
from ocr_sprint.ground_truth.cells import Coded, Margin, coded_as
from ocr_sprint.ground_truth.duplicates import Groups, near_duplicates, shingles, similarity
from ocr_sprint.ground_truth.splits import distance, divide, split_sizes

RATIOS = {"train": 0.8, "val": 0.1, "test": 0.1}
LABELS = tuple(map(str, range(11)))


def coded(count: int, seed: int = 0) -> tuple[Coded, list[str]]:
    generator = np.random.default_rng(seed)
    scores = np.clip(np.round(generator.normal(3, 2, (count, 1)) + generator.normal(0, 1.5, (count, 5))), 0, 10)
    return coded_as([Margin(f"d{j}", LABELS) for j in range(5)], list(scores.T)), [f"a{i}" for i in range(count)]


def sizes_of(split: npt.NDArray[Any]) -> dict[str, int]:
    return {name: int((split == name).sum()) for name in RATIOS}


def undivided(split: npt.NDArray[Any], groups: npt.NDArray[Any]) -> bool:
    return all(len(set(split[groups == group].tolist())) == 1 for group in set(groups.tolist()))


@given(st.integers(0, 5000), st.tuples(*[st.integers(0, 100)] * 3).filter(sum))
def test_sizes_add_up(total: int, parts: tuple[int, int, int]) -> None:
    ratios = {name: part / sum(parts) for name, part in zip(RATIOS, parts, strict=True)}
    sizes = split_sizes(total, ratios)
    assert sum(sizes.values()) == total
    assert all(abs(sizes[name] - ratios[name] * total) < 1 for name in ratios)


@pytest.mark.parametrize("ratios", [(0.8, 0.1, 0.2), (0.8, 0.1, 0.0), (1.1, -0.05, -0.05), (80, 10, 10)])
def test_ratios_that_do_not_add_up_are_refused(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="must add up to 1"):
        split_sizes(100, dict(zip(RATIOS, ratios, strict=True)))


def test_single_records_are_divided_in_the_shape_of_the_whole() -> None:
    table, ids = coded(2000)
    sizes = split_sizes(2000, RATIOS)
    split = divide(table, ids, sizes, seed=1)
    assert sizes_of(split) == sizes
    chance = [distance(table, np.random.default_rng(i).permutation(2000) < 200) for i in range(5)]
    for name in ("val", "test"):
        floor = np.mean([np.abs(h - np.round(h)).sum() / 400 for h in histograms(table, 0.1)])
        assert distance(table, split == name) <= floor + 0.005
        assert distance(table, split == name) < min(chance) / 3


def histograms(table: Coded, ratio: float) -> list[npt.NDArray[np.float64]]:
    return [np.bincount(codes, minlength=11) * ratio for codes in table.codes.T]


@pytest.mark.parametrize("kind", ["pairs", "few", "mixed", "satuan"])
def test_groups_are_never_divided(kind: str) -> None:
    table, ids = coded(1000)
    generator = np.random.default_rng(3)
    groups = {
        "pairs": np.arange(1000) // 2,
        "few": generator.integers(0, 60, 1000),
        "mixed": np.where(np.arange(1000) < 300, np.arange(1000) // 6, np.arange(1000)),
        "satuan": np.floor(200 * generator.random(1000) ** 2).astype(np.int64),
    }[kind]
    split = divide(table, ids, split_sizes(1000, RATIOS), seed=2, groups=groups)
    assert undivided(split, groups)
    assert sizes_of(split) == {"train": 800, "val": 100, "test": 100}
    assert distance(table, split == "test") < 0.12


@pytest.mark.parametrize("grouped", [False, True])
def test_the_order_of_the_rows_changes_no_split(grouped: bool) -> None:
    table, ids = coded(600)
    groups = np.arange(600) // 3 if grouped else np.arange(600)
    sizes = split_sizes(600, RATIOS)
    split = divide(table, ids, sizes, seed=4, groups=groups)
    order = np.random.default_rng(1).permutation(600)
    moved = divide(table.take(order), [ids[row] for row in order], sizes, seed=4, groups=groups[order])
    assert moved.tolist() == split[order].tolist()
    assert divide(table, ids, sizes, seed=5, groups=groups).tolist() != split.tolist()


def test_a_giant_is_named() -> None:
    table, ids = coded(100)
    groups = np.where(np.arange(100) < 90, 7, np.arange(100) + 100)
    with pytest.raises(
        UsageError,
        match=r"the group of a0 has 90 records and the largest split, train, has .* 80; groups .* near-.* --no-copies",
    ):
        divide(table, ids, split_sizes(100, RATIOS), seed=1, groups=groups)
    with pytest.raises(UsageError, match="the splits take 90 records and there are 100"):
        divide(table, ids, {"train": 90}, seed=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.tuples(*[st.integers(0, 10)] * 3).filter(sum))
def test_any_groups_and_ratios(numbers: list[int], parts: tuple[int, int, int]) -> None:
    table, ids = coded(len(numbers))
    groups = np.array(numbers)
    sizes = split_sizes(len(numbers), {n: p / sum(parts) for n, p in zip(RATIOS, parts, strict=True)})
    largest = int(np.bincount(groups).max())
    if largest > max(sizes.values()):
        with pytest.raises(UsageError, match="groups are never divided"):
            divide(table, ids, sizes, seed=0, groups=groups)
        return
    split = divide(table, ids, sizes, seed=0, groups=groups)
    assert undivided(split, groups)
    assert set(split.tolist()) <= set(RATIOS)
    singles = divide(table, ids, sizes, seed=0)
    assert sizes_of(singles) == sizes


def article(seed: int, words: int = 120) -> str:
    generator = random.Random(seed)
    letters = "aeiou", "bdgklmnprst"
    made = ["".join(generator.choice(letters[1 - i % 2]) for i in range(generator.randint(4, 9))) for _ in range(words)]
    return " ".join(made)


def worn(text: str, share: float, seed: int) -> str:
    generator = random.Random(seed)
    return "".join(generator.choice("abcdefghij0158") if generator.random() < share else letter for letter in text)


def test_copies_are_found_through_faults() -> None:
    texts = [article(i) for i in range(60)]
    copies = [*(texts[i].upper() for i in range(10)), *(worn(texts[i], 0.03, i) for i in range(10, 30))]
    edited = [" ".join(texts[i].split()[:110]) + " tambahan redaksi" for i in range(30, 40)]
    every = [*texts, *copies, *edited]
    groups = near_duplicates(every.__getitem__, len(every))
    assert groups[60:].tolist() == list(range(40))
    assert groups[:60].tolist() == list(range(60))


def test_chains_of_copies_are_one_group() -> None:
    text = article(1)
    chain = [text]
    for step in range(6):
        chain.append(worn(chain[-1], 0.04, step))
    assert similarity(shingles(chain[0]), shingles(chain[-1])) < 0.4
    assert set(near_duplicates(chain.__getitem__, len(chain)).tolist()) == {0}


@given(st.lists(st.text(max_size=20), max_size=12))
def test_any_text_can_be_compared(texts: list[str]) -> None:
    groups = near_duplicates(texts.__getitem__, len(texts))
    assert len(groups) == len(texts)
    for row, text in enumerate(texts):
        assert groups[row] <= row
        if text.strip() and text in texts[:row]:
            assert groups[row] == groups[texts.index(text)]


def test_columns_join_groups() -> None:
    groups = Groups(6)
    groups.join_equal(["polres a", "polres b", "", "polres a", None, "polres b"])
    groups.join(2, 5)
    assert groups.numbers().tolist() == [0, 1, 1, 0, 4, 1]
