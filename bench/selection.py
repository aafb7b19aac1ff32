"""Measure coverage and selection beside what else people use, all in one run and in CPU seconds of one thread.

    python bench/selection.py quality [--labels FILE]    share of the proven maximum; FILE: labels of one's own
    python bench/selection.py strategies --labels FILE   score, bound and gap of every strategy on labels of one's own
    python bench/selection.py splits                     distance from the whole's shape, with and without groups
    python bench/selection.py scale --n 1000000          cells, seconds, memory and gap for larger corpora
    python bench/selection.py stream --n 100000000       the same, ten million at a time from a file of scores
    python bench/selection.py engines --n 1000000        from sidecars in memory and in DuckDB: the same digest
    python bench/selection.py reading                    rows per second and memory, each reader in its own process

Peers take part where they are installed (apricot-select, scikit-learn, iterative-stratification, polars, duckdb); the
tables say which are not. On a shared machine trust CPU seconds; one thread each (NUMBA_NUM_THREADS=1 for apricot).
(The file is not called select.py: Python would take it for its own module of that name.)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist
from typing import Any, get_args

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd

from ocr_sprint.ground_truth.cells import Cells, Coded, Margin, coded_as, compress, merge_cells, pick
from ocr_sprint.ground_truth.certificate import Problem, make_problem
from ocr_sprint.ground_truth.corpus import Choices, read_corpus
from ocr_sprint.ground_truth.records import read_records
from ocr_sprint.ground_truth.select import select
from ocr_sprint.ground_truth.solver import solve, solve_greedily
from ocr_sprint.ground_truth.splits import distance, divide
from ocr_sprint.ground_truth.strategies import Strategy, Wish, demands, rake

DIMENSIONS = ("agency", "progress", "benefit", "connection", "innovation", "justice", "resilience", "wonder")
SHARES = np.array([0.22, 0.2, 0.17, 0.13, 0.1, 0.07, 0.05, 0.03, 0.02, 0.007, 0.003])
LABELS = tuple(map(str, range(11)))
EVEN = "maximize_coverage"


def scores(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Correlated scores of eight dimensions, most of them low, each dimension with its own shape."""
    generator = np.random.default_rng(seed)
    made = np.empty((count, len(DIMENSIONS)), np.uint8)
    for start in range(0, count, 1_000_000):
        size = min(count, start + 1_000_000) - start
        common = generator.normal(size=size) * 0.6**0.5
        for j in range(len(DIMENSIONS)):
            ends = np.cumsum(SHARES * (1 + 0.3 * np.sin(j + np.arange(11))))
            cuts = [NormalDist().inv_cdf(end) for end in (ends / ends[-1])[:-1]]
            made[start : start + size, j] = np.searchsorted(cuts, common + generator.normal(size=size) * 0.4**0.5)
    return made


def coded(rows: np.ndarray[Any, Any]) -> Coded:
    """The scores as margins."""
    return coded_as([Margin(f"d{j}", LABELS) for j in range(rows.shape[1])], list(rows.T))


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the CPU seconds that it took."""
    start = time.process_time()
    value = function()
    return value, time.process_time() - start


def even(cells: Cells, size: int) -> Problem:
    """The problem of maximize_coverage."""
    return make_problem(cells, demands(cells, Wish(size, EVEN)), size)


def in_place(table: Coded, rows: Sequence[int], problem: Problem) -> float:
    """The score of these rows."""
    filled = np.concatenate([np.bincount(codes[list(rows)], minlength=11) for codes in table.codes.T])
    return float(problem.weight @ np.minimum(filled, problem.target))


def apricot(table: Coded, size: int, problem: Problem) -> dict[str, tuple[float, float]]:
    """The peers' selections: each optimises its own objective and is judged by ours."""
    if find_spec("apricot") is None:
        return {"apricot-select (not installed)": (float("nan"), float("nan"))}
    from apricot import FacilityLocationSelection, FeatureBasedSelection

    hot = np.concatenate([np.eye(11)[codes] for codes in table.codes.T], axis=1)
    peers = {
        "apricot FeatureBased sqrt": (FeatureBasedSelection(size, concave_func="sqrt", optimizer="naive"), hot),
        "apricot FeatureBased log": (FeatureBasedSelection(size, concave_func="log", optimizer="naive"), hot),
    }
    if len(hot) <= 20_000:
        location = FacilityLocationSelection(size, metric="euclidean", optimizer="lazy")
        peers["apricot FacilityLocation"] = (location, table.codes.astype(float))
    found = {}
    for name, (selector, features) in peers.items():
        _, took = timed(lambda selector=selector, features=features: selector.fit(features))
        found[name] = (in_place(table, selector.ranking.tolist(), problem), took)
    return found


def quality(table: Coded, size: int) -> pd.DataFrame:
    """Every method's share of the proven maximum."""
    cells, counting = timed(lambda: compress(table))
    problem = even(cells, size)
    solution, took = timed(lambda: solve(problem, 42))
    ids = list(map(str, range(len(table.codes))))
    used = solution.amounts > 0
    rows, picking = timed(lambda: pick(table, ids, cells.codes[used], solution.amounts[used], 42))
    generator = np.random.default_rng(0)
    shares = [np.bincount(codes, minlength=11) for codes in table.codes.T]
    rarity = sum(1 / count[codes] for count, codes in zip(shares, table.codes.T, strict=True))
    by_rarity = generator.choice(len(rarity), size, replace=False, p=rarity / rarity.sum())
    greedy, greedy_took = timed(lambda: solve_greedily(problem))
    raked, raking_took = timed(lambda: rake(problem, 42)[0])
    rivals = {
        "ours": (in_place(table, rows.tolist(), problem), counting + took + picking),
        "random": (in_place(table, generator.permutation(len(rarity))[:size].tolist(), problem), 0.0),
        "inverse frequency": (in_place(table, by_rarity.tolist(), problem), 0.0),
        "greedy": (problem.score(greedy), greedy_took),
        "raking": (problem.score(raked), raking_took),
        **apricot(table, size, problem),
    }
    lines = [
        [name, found / problem.perfect, 100 * found / solution.bound, took] for name, (found, took) in rivals.items()
    ]
    print(f"\n{size} of {len(ids)}, {len(cells)} cells, proven maximum {solution.bound / problem.perfect:.5f}")
    return pd.DataFrame(lines, columns=["method", "score", "% of maximum", "CPU s"]).set_index("method")


def strategies(path: Path, sizes: Sequence[int]) -> pd.DataFrame:
    """Every strategy on real labels: what it scores, what any could, and the interquartile ranges added up."""
    records, _ = read_corpus([path], Choices(), sidecar=False)
    lines: list[list[Any]] = []
    for strategy in get_args(Strategy):
        if (strategy == "balanced_tiers" and "tier" not in records.columns) or strategy == "active_learning":
            continue
        for size in sizes:
            made, took = timed(lambda strategy=strategy, size=size: select(records, Wish(size, strategy)))
            iqrs = np.quantile(records.scores()[made.rows], [0.25, 0.75], axis=0, method="inverted_cdf")
            proven = made.width.proven if made.width else None
            lines.append(
                [strategy, size, made.score, made.bound, 100 * made.gap, (iqrs[1] - iqrs[0]).sum(), proven, took]
            )
    columns = ["strategy", "k", "score", "at most", "gap %", "IQRs", "IQRs at most", "CPU s"]
    return pd.DataFrame(lines, columns=columns).set_index(["strategy", "k"])


def peers_for_splits(table: Coded, groups: np.ndarray[Any, Any]) -> dict[str, Callable[[], np.ndarray[Any, Any]]]:
    """Test sets of a tenth by other libraries, as truth values."""
    found: dict[str, Callable[[], np.ndarray[Any, Any]]] = {}
    count = len(groups)
    tier = np.digitize(table.codes.mean(axis=1), [1, 2, 3, 5])
    for name in ("sklearn", "iterstrat"):
        if find_spec(name) is None:
            found[f"{name} (not installed)"] = lambda: np.zeros(count, bool)
    if find_spec("sklearn") is not None:
        from sklearn.model_selection import StratifiedGroupKFold

        def stratified_groups() -> np.ndarray[Any, Any]:
            folds = StratifiedGroupKFold(10, shuffle=True, random_state=0).split(table.codes, tier, groups)
            return np.isin(np.arange(count), next(iter(folds))[1])

        found["StratifiedGroupKFold"] = stratified_groups
    if find_spec("iterstrat") is not None and len(set(groups.tolist())) == count:
        from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

        hot = np.concatenate([np.eye(11, dtype=int)[codes] for codes in table.codes.T], axis=1)

        def iterative() -> np.ndarray[Any, Any]:
            split = MultilabelStratifiedShuffleSplit(1, test_size=0.1, random_state=0).split(hot, hot)
            return np.isin(np.arange(count), next(iter(split))[1])

        found["iterative-stratification"] = iterative
    return found


def splits(count: int) -> pd.DataFrame:
    """How far a test set of a tenth is from the shape of the whole."""
    table, generator = coded(scores(count, 3)), np.random.default_rng(4)
    ids = list(map(str, range(count)))
    sizes = {"train": count - 2 * (count // 10), "val": count // 10, "test": count // 10}
    lines = []
    kinds = {"none": np.arange(count)}
    kinds |= {f"{g} groups": np.floor(g * generator.random(count) ** 1.5).astype(int) for g in (150, 900)}
    for kind, groups in kinds.items():
        split, took = timed(lambda groups=groups: divide(table, ids, sizes, 1, groups))
        tests = {"ours": (split == "test", took)}
        tests |= {name: timed(make) for name, make in peers_for_splits(table, groups).items()}
        tests["random"] = (generator.permutation(count) < sizes["test"], 0.0)
        for name, (test, seconds) in tests.items():
            leaks = len(set(groups[test].tolist()) & set(groups[~test].tolist()))
            lines.append([kind, name, int(test.sum()), 100 * distance(table, test), leaks, seconds])
    floor = np.mean([np.abs(h - np.round(h)).sum() / 2 for h in (np.bincount(c) / 10 for c in table.codes.T)])
    print(f"\ntest sets from {count}; whole records cannot be nearer than {100 * floor / sizes['test']:.2f} %")
    columns = ["groups", "method", "records", "% from shape", "groups cut", "CPU s"]
    return pd.DataFrame(lines, columns=columns).set_index(["groups", "method"])


def scale(count: int, size: int) -> pd.DataFrame:
    """Cells, seconds, memory and gap."""
    table = coded(scores(count, 5))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells, counting = timed(lambda: compress(table))
    solution, solving = timed(lambda: solve(even(cells, size), 42))
    used = solution.amounts > 0

    rows, picking = timed(lambda: pick(table, Names(), cells.codes[used], solution.amounts[used], 42))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = [count, len(cells), len(rows), counting, solving, picking, 100 * solution.gap, before, peak]
    columns = ["rows", "cells", "k", "count s", "solve s", "pick s", "gap %", "MB before", "MB at most"]
    return pd.DataFrame([line], columns=columns).set_index("rows")


def streamed(count: int, size: int, chunk: int = 10_000_000) -> pd.DataFrame:
    """Cells of one part after another, as they come from a file, and the candidates of each part."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "scores")
        maker = (
            "import sys; from selection import scores; c, n, p = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]\n"
            "with open(p, 'wb') as f:\n"
            "    for i in range(0, n, c): f.write(scores(min(c, n - i), 5 + i // c).tobytes())"
        )
        subprocess.run(
            [sys.executable, "-c", maker, str(chunk), str(count), path], check=True, cwd=Path(__file__).parent
        )
        starts = range(0, count, chunk)

        def part(start: int) -> Coded:
            many = min(chunk, count - start) * len(DIMENSIONS)
            rows = np.fromfile(path, np.uint8, many, offset=start * len(DIMENSIONS))
            return coded(rows.reshape(-1, len(DIMENSIONS)))

        def counted() -> Cells:
            cells = compress(part(0))
            for start in starts[1:]:
                cells = merge_cells([cells, compress(part(start))])
            return cells

        cells, counting = timed(counted)
        solution, solving = timed(lambda: solve(even(cells, size), 42))
        used = solution.amounts > 0
        order = cells.codes[used], solution.amounts[used], 42

        def picked() -> int:
            found, codes = [], []
            for start in starts:
                table = part(start)
                mine = pick(table, Names(start), *order)
                found += [str(start + row) for row in mine]
                codes.append(table.codes[mine])
            return len(pick(coded(np.concatenate(codes)), found, *order))

        rows, picking = timed(picked)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = [count, len(cells), rows, counting, solving, picking, 100 * solution.gap, peak]
    columns = ["rows", "cells", "k", "count s", "solve s", "pick s", "gap %", "MB at most"]
    return pd.DataFrame([line], columns=columns).set_index("rows")


class Names(Sequence[str]):
    """Names of rows without a list of millions of them."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __getitem__(self, row: Any) -> Any:
        return str(self.start + row)

    def __len__(self) -> int:
        raise NotImplementedError


READERS = {
    "ours": "from ocr_sprint.ground_truth.records import read_records as r; from pathlib import Path\n"
    "n = len(r([Path(p)], sidecar=False)[0])",
    "ours, sidecar": "from ocr_sprint.ground_truth.records import read_records as r; from pathlib import Path\n"
    "n = len(r([Path(p)])[0])",
    "json": "import json\nn = len([json.loads(line)['x_analysis'] for line in open(p)])",
    "pandas": "import pandas\nn = len(pandas.read_json(p, lines=True))",
    "polars": "import polars\nn = polars.scan_ndjson(p).select('id', 'x_analysis').collect().height",
    "duckdb": "import duckdb\nn = len(duckdb.sql(f\"select id, x_analysis from read_json('{p}')\").fetchnumpy()['id'])",
}
AROUND = """
import sys, time
p = sys.argv[1]
start = time.process_time()
{body}
took = time.process_time() - start
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(n, took, int(peak) / 1024)
"""


def reading(count: int) -> pd.DataFrame:
    """Rows per second and memory, imports included, each in a process of its own."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labeled_articles.jsonl"
        text = "kata berita panjang tentang warga desa yang menanam pohon bersama " * 60
        with path.open("w") as file:
            for index, row in enumerate(scores(count, 6).tolist()):
                label = dict(zip(DIMENSIONS, row, strict=True))
                file.write(json.dumps({"id": f"a{index}", "text": text, "x_analysis": label}) + "\n")
        read_records([path])  # leaves the sidecar
        for name, body in READERS.items():
            if name in ("pandas", "polars", "duckdb") and find_spec(name) is None:
                lines.append([f"{name} (not installed)", float("nan"), float("nan"), float("nan")])
                continue
            command = [sys.executable, "-c", AROUND.replace("{body}", body), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows, seconds, memory = map(float, done.stdout.split())
            lines.append([name, seconds, rows / seconds, memory])
        print(f"\n{count} records, {path.stat().st_size / 1e6:.0f} MB")
    return pd.DataFrame(lines, columns=["reader", "CPU s", "rows/s", "MB"]).set_index("reader")


ENGINES = {
    "in memory": "from ocr_sprint.ground_truth.records import read_records\n"
    "from ocr_sprint.ground_truth.select import select\n"
    "from ocr_sprint.ground_truth.strategies import Wish\n"
    "made = select(read_records(paths)[0], Wish(2000))",
    "in DuckDB": "from ocr_sprint.ground_truth.in_duckdb import select_in_duckdb\n"
    "from ocr_sprint.ground_truth.strategies import Wish\n"
    "made = select_in_duckdb(paths, Wish(2000)).selection",
}


def engines(count: int) -> pd.DataFrame:
    """The same selection from sidecars in memory and in DuckDB, each in a process of its own."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"part{number}.jsonl" for number in range(4)]
        for number, path in enumerate(paths):
            with path.open("w") as file:
                for index, row in enumerate(scores(count // 4, number).tolist()):
                    label = dict(zip(DIMENSIONS, row, strict=True))
                    file.write(json.dumps({"id": f"{number}-{index}", "x_analysis": label}) + "\n")
            read_records([path])  # leaves the sidecar
        for name, body in ENGINES.items():
            body = f"from pathlib import Path\npaths = [Path(a) for a in sys.argv[1:]]\n{body}\nn = made.digest[:12]"
            command = [sys.executable, "-c", AROUND.replace("{body}", body), *map(str, paths)]
            done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            lines.append([name, done[0], float(done[1]), float(done[2])])
    return pd.DataFrame(lines, columns=["engine", "digest", "CPU s", "MB"]).set_index("engine")


MODES = ["all", "quality", "strategies", "splits", "scale", "stream", "engines", "reading"]


def main() -> None:
    """Run one measurement, or the small ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=MODES, default="all")
    parser.add_argument("--n", type=int, default=20_000, help="rows")
    parser.add_argument("--k", type=int, nargs="+", default=[2000], help="sizes of the selection")
    parser.add_argument("--labels", type=Path, help="labelled records instead of made ones, for quality")
    asked = parser.parse_args()
    shown: list[pd.DataFrame] = []
    if asked.what in ("all", "quality"):
        if asked.labels is None:
            table = coded(scores(asked.n, 5))
        else:
            records, _ = read_corpus([asked.labels], Choices(), sidecar=False)
            table = coded(records.layout.scale.bin_of(records.ticks))
        for size in asked.k:
            print(quality(table, size).round({"score": 4, "% of maximum": 2, "CPU s": 2}).to_string())
    if asked.what == "strategies":
        if asked.labels is None:
            parser.error("strategies needs --labels")
        print(strategies(asked.labels, asked.k).round(4).to_string())
    if asked.what == "engines":
        shown.append(engines(asked.n))
    if asked.what == "stream":
        shown += [streamed(asked.n, size) for size in asked.k]
    if asked.what in ("all", "splits"):
        shown.append(splits(min(asked.n, 2000)))
    if asked.what in ("all", "scale"):
        shown += [scale(asked.n, size) for size in asked.k]
    if asked.what in ("all", "reading"):
        shown.append(reading(asked.n))
    for frame in shown:
        print(frame.round(3).to_string())


if __name__ == "__main__":
    main()
