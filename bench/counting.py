"""How long the statistics and the readiness report of a large store take.

    python bench/counting.py                  10,000 letters in each database: about a minute
    python bench/counting.py --jobs 100000    as published

Wall time and CPU time of this process; letters are made from a fixed seed (see review_stores.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from arguments import whole
from review_stores import fill

from ocr_sprint.review.readiness import readiness
from ocr_sprint.review.statistics import statistics
from ocr_sprint.review.store import Store, open_store

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from postgres_server import new_database, postgres_server


def timed(function: Callable[[], object], times: int) -> dict[str, float]:
    """Median and 95th percentile of the wall time, and the median CPU time, in milliseconds."""
    function()
    wall, cpu = [], []
    for _ in range(times):
        began, spent = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
    found = {"median": np.median(wall), "p95": np.quantile(wall, 0.95), "CPU": np.median(cpu)}
    return {name: 1000 * float(value) for name, value in found.items()}


def measured(store: Store, jobs: int, times: int) -> dict[str, dict[str, float]]:
    """What takes how long in one store."""
    began = time.perf_counter()
    fill(store, jobs)
    print(f"{store.engine.dialect.name}: filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return {
        "statistics, without replay": timed(lambda: statistics(store, prove=False), times),
        "statistics, every letter proved": timed(lambda: statistics(store), 1),
        "readiness": timed(lambda: readiness(store), 1),
    }


def main() -> None:
    """Print a table per database as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=whole(), default=10_000, help="letters in each store")
    parser.add_argument("--times", type=whole(), default=20, help="how often the short ones are timed")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(postgres_server())
        urls = {"SQLite": f"sqlite:///{folder}/store.db", "PostgreSQL": stack.enter_context(new_database(server.url))}
        for name, url in urls.items():
            with open_store(url) as store:
                table = pd.DataFrame(measured(store, asked.jobs, asked.times)).T
            print(
                f"{name}, {asked.jobs:,} jobs, milliseconds\n\n{table.round().astype(int).to_markdown()}\n", flush=True
            )


if __name__ == "__main__":
    main()
