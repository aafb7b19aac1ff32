"""What the coverage panel answers, and how quickly, beside a data frame that answers the same.

    python bench/coverage_panel.py [--n 20000 1000000] [--folder FOLDER]

Labels are made up and written to a file (a million are 300 MB; read once, then from the sidecar). Each question is
asked as the screen asks it and timed from its message to its JSON: CPU seconds of one thread, and the ratio to pandas
doing the same with a frame in memory, where pandas can. `first` makes the index of a margin too, `again` has it. The
panel fetches the texts of a page from the file; pandas has none to fetch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import pandas as pd
from selection import DIMENSIONS, scores

from ocr_sprint.ground_truth.corpus import Choices, read_corpus
from ocr_sprint.panels.coverage_desk import Corpus, CoverageDesk
from ocr_sprint.panels.screen import reply

PAIR = {"rows": "agency", "columns": "wonder"}


def write_labels(path: Path, count: int) -> None:
    """Articles of about 300 bytes, with sources, languages and tiers."""
    made = scores(count, seed=1)
    with path.open("w") as out:
        for number, row in enumerate(made.tolist()):
            label = dict(zip(DIMENSIONS, row, strict=True)) | {"tier": ("none", "connection", "impact")[sum(row) // 27]}
            article = {"id": f"a{number}", "title": f"Well {number}", "source": f"koran {number % 200}"}
            article |= {"language": ("id", "jv")[number % 2], "content": "Forty families dug it together. " * 3}
            out.write(json.dumps({**article, "uplifting_analysis": label}) + "\n")


def timed(act: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of the quickest of some repeats."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        act()
        best = min(best, time.process_time() - start)
    return best


def frame_of(desk: CoverageDesk) -> pd.DataFrame:
    """The same records as a data frame."""
    records = desk.corpus.records
    bins = records.layout.scale.bin_of(records.ticks)
    frame = pd.DataFrame(bins, columns=list(records.layout.dimensions))
    for name, column in records.columns.items():
        frame[name] = pd.Categorical.from_codes(column.codes, list(column.names))
    return frame.assign(id=records.ids)


def peers(frame: pd.DataFrame) -> dict[str, Callable[[], Any]]:
    """How pandas answers, by the name of the question."""
    dimensions = list(DIMENSIONS)

    def listed(rows: pd.DataFrame) -> Any:
        return len(rows), rows.head(20).to_dict("records")

    return {
        "map of every dimension": lambda: frame[dimensions].apply(lambda column: column.value_counts()),
        "map of two dimensions": lambda: frame.groupby(["agency", "wonder"], observed=False).size().unstack(),
        "map of one tier": lambda: frame[frame.tier == "impact"][dimensions].apply(
            lambda column: column.value_counts()
        ),
        "records of a rare cell": lambda: listed(frame[frame.wonder == 9]),
        "records of a frequent cell": lambda: listed(frame[frame.agency == 1]),
        "records of a pair's cell": lambda: listed(frame[(frame.agency == 1) & (frame.wonder == 5)]),
        "page 90 of a frequent cell": lambda: frame[frame.agency == 1].iloc[1800:1820].to_dict("records"),
    }


QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "map of every dimension": ("table", {}),
    "map of two dimensions": ("table", PAIR),
    "map of one tier": ("table", {"only": ["tier", 1]}),
    "records of a rare cell": ("records", {"row": 7, "column": 9}),
    "records of a frequent cell": ("records", {"row": 0, "column": 1}),
    "records of a pair's cell": ("records", {**PAIR, "row": 1, "column": 5}),
    "page 90 of a frequent cell": ("records", {"row": 0, "column": 1, "page": 90}),
    "a whole record": ("record", {"row": 12_345}),
    "gaps and their prices": ("gaps", {}),
}


def ask(desk: CoverageDesk, kind: str, body: dict[str, Any]) -> int:
    """The length of an answer as it travels."""
    answered, _ = reply(desk.answer, {"id": "q", "kind": kind, "body": body})
    assert "error" not in answered, answered
    return len(json.dumps(answered))


def measure(path: Path) -> pd.DataFrame:
    """A row for each question."""
    start = time.process_time()
    records, account = read_corpus([path], Choices(groups=("language",)))
    print(f"{len(records):,} records: read in {time.process_time() - start:.2f} CPU s", flush=True)
    desk = CoverageDesk(Corpus(records, account))
    others = peers(frame_of(desk))
    rows = []
    for name, (kind, body) in QUESTIONS.items():
        first = timed(lambda kind=kind, body=body: ask(desk, kind, body), 1)
        again = timed(lambda kind=kind, body=body: ask(desk, kind, body), 5)
        other = timed(others[name], 3) if name in others else float("nan")
        rows.append((name, 1000 * first, 1000 * again, 1000 * other, again / other, ask(desk, kind, body) / 1000))
    names = ["question", "first ms", "again ms", "pandas ms", "of pandas", "kB"]
    return pd.DataFrame(rows, columns=names).set_index("question")


def main() -> None:
    """Measure each size, and how the largest compares with the smallest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the labels are kept for another run")
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for count in given.n:
            path = folder / f"labels_{count}.jsonl"
            if not path.exists():
                write_labels(path, count)
            read_corpus([path], Choices(groups=("language",)))  # leaves the sidecar
            table = measure(path)
            print(
                table.round({"first ms": 1, "again ms": 1, "pandas ms": 1, "of pandas": 2, "kB": 1}).to_string(), "\n"
            )
            found.append(table["again ms"])
    if len(found) > 1:
        print(f"{given.n[-1]:,} records take, against {given.n[0]:,} ({given.n[-1] / given.n[0]:g} times as many):")
        print((found[-1] / found[0]).round(1).to_string(header=False))
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
