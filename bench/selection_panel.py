"""Measure the selection panel's kernel side: what a change costs beside the selection itself, as ratios within one run.

    python bench/selection_panel.py [--n 20000] [--pulls 40] [--rounds 5]

Rows: a selection by the command's own function; the answer to a change (state and command line); a change of the size
until its bound and until its result is told; the same for a change of the strategy, for which validation and test are
known; a change of the folder; a slider pulled through many values without a pause, from its last value until the result
of that one is told. The screen's painting is not in it, nor the search for copies of texts, which precedes the first
result and is not repeated. BLAS has one thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import orjson
from arguments import whole
from selection import DIMENSIONS, scores

from ocr_sprint.ground_truth.corpus import read_corpus
from ocr_sprint.ground_truth.strategies import Wish
from ocr_sprint.ground_truth.training_set import Division
from ocr_sprint.ground_truth.training_task import Task, build
from ocr_sprint.panels.selection_desk import SelectionDesk
from ocr_sprint.panels.selection_worker import Corpus


def corpus(folder: Path, count: int) -> Corpus:
    """That many labelled articles."""
    path = folder / "labeled_articles.jsonl"
    with path.open("wb") as out:
        for number, row in enumerate(scores(count, 1).tolist()):
            label = dict(zip(DIMENSIONS, row, strict=True))
            out.write(orjson.dumps({"id": f"a{number}", "uplifting_analysis": label}) + b"\n")
    return Corpus((path,), *read_corpus([path], sidecar=False))


class Screen:
    """Hears what the kernel tells, and when."""

    def __init__(self) -> None:
        self.heard, self.results = threading.Condition(), 0
        self.newest = {"bound": 0, "result": 0}

    def tell(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take what the kernel says, as the bytes that it would send."""
        orjson.dumps(body)
        if kind in self.newest:
            with self.heard:
                self.results += kind == "result"
                self.newest[kind] = int(body["turn"])
                self.heard.notify_all()

    def wait(self, turn: int, kind: str = "result") -> None:
        """Wait for what is told of this turn or a newer one."""
        with self.heard:
            self.heard.wait_for(lambda: self.newest[kind] >= turn)


def clock(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds by the clock."""
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start


def change(size: int) -> dict[str, Any]:
    """A message of the slider."""
    return {"name": "target_size", "text": str(size), "settled": True}


def until(desk: SelectionDesk, screen: Screen, **texts: str) -> tuple[float, float]:
    """Change one setting; seconds until its bound and until its result are told."""
    ((name, text),) = texts.items()
    start = time.perf_counter()
    turn = desk.answer("change", {"name": name, "text": text, "settled": True})["turn"]
    screen.wait(turn, "bound")
    bound = time.perf_counter() - start
    screen.wait(turn)
    result = time.perf_counter() - start
    desk.wait()
    return bound, result


def measure(desk: SelectionDesk, screen: Screen, size: int, pulls: int) -> tuple[dict[str, float], int]:
    """One round with sizes that were not solved before: the seconds of each row, and how many pulls were solved."""
    pool = desk._worker.good.pool
    rows = {"selection alone": clock(lambda: build(pool, Task(Wish(size), Division(), copies=False)))[1]}
    rows["answer to a change"] = clock(lambda: desk.answer("change", change(size + pulls + 1)))[1]
    desk.wait()
    rows["size to bound"], rows["size to result"] = until(desk, screen, target_size=str(size))
    rows["strategy to bound"], rows["strategy to result"] = until(desk, screen, strategy="extreme_focus")
    desk.answer("undo", {})
    desk.wait()
    folder = {"name": "output_dir", "text": f"folder {size}", "settled": True}
    rows["folder to result"] = clock(lambda: screen.wait(desk.answer("change", folder)["turn"]))[1]
    desk.wait()
    before = screen.results
    for pull in range(1, pulls + 1):
        start = time.perf_counter()
        state = desk.answer("change", change(size + pull))
    screen.wait(state["turn"])
    rows["last pull to result"] = time.perf_counter() - start
    desk.wait()
    return rows, screen.results - before


def main() -> None:
    """Print the medians of all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=whole(1000), default=20_000, help="records")
    parser.add_argument("--pulls", type=whole(2), default=40, help="values that a slider goes through")
    parser.add_argument("--rounds", type=whole(), default=5)
    given = parser.parse_args()
    screen, size = Screen(), given.n // 10
    with tempfile.TemporaryDirectory() as folder:
        labels, reading = clock(lambda: corpus(Path(folder), given.n))
        desk = SelectionDesk(labels, Task(Wish(size), Division(), copies=False), screen.tell)
        _, first = clock(desk.wait)
        rounds = [measure(desk, screen, size + 1 + n * (given.pulls + 2), given.pulls) for n in range(given.rounds)]
    print(f"{given.n:,} records written and read in {reading:.1f} s; first solved in {first:.1f} s")
    alone = median(rows["selection alone"] for rows, _ in rounds)
    for name in rounds[0][0]:
        seconds = median(rows[name] for rows, _ in rounds)
        print(f"{name:20} {seconds * 1000:8.1f} ms {seconds / alone:8.3f} of a selection")
    print(f"of {given.pulls} pulls {median(solved for _, solved in rounds):g} were solved and told, the others dropped")


if __name__ == "__main__":
    main()
