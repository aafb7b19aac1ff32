"""Measure reading letters: accuracy per degradation level, and speed against the bare engine.

    python bench/documents.py accuracy --n 100 --seed 77      a table per level
    python bench/documents.py speed                           ratios, all taken in one run of some minutes

Letters are made on the spot; seeds below 3000 were used while the rules were written, so take others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from arguments import whole
from scoring import read_letter

from ocr_sprint.core.work import work
from ocr_sprint.documents.extract import extract
from ocr_sprint.documents.ocr import engine, read_page
from ocr_sprint.documents.pages import Page, read_pages
from ocr_sprint.documents.pipeline import process
from ocr_sprint.documents.synthetic import LEVELS, Letter, letters

SHOWN = (
    "header.nomor_sprint", "header.tanggal", "header.perihal", "header.satuan", "personel.nama", "personel.pangkat",
    "personel.nrp", "personel.jabatan", "penandatangan.nama", "penandatangan.nrp",
)  # fmt: skip


def ranking(judged: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """AUC of the confidence for being right, and the expected calibration error in ten equal bins."""
    values, good = np.array([v for v, _ in judged]), np.array([g for _, g in judged], dtype=bool)
    ranks = pd.Series(values).rank().to_numpy()
    positives, negatives = good.sum(), (~good).sum()
    auc = (ranks[good].sum() - positives * (positives + 1) / 2) / max(positives * negatives, 1)
    bins = np.clip((values * 10).astype(int), 0, 9)
    error = sum(abs(values[bins == b].mean() - good[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    return float(auc), float(error)


def accuracy(n: int, seed: int, processes: int) -> pd.DataFrame:
    """A column per level: exact match in percent, rows found, whole letters, and what the confidence is worth."""
    table = {}
    for level in LEVELS:
        seen: Counter[str] = Counter()
        right: Counter[str] = Counter()
        judged: list[tuple[float, bool]] = []
        asked = [(seed * 1_000_000 + index, level) for index in range(n)]
        for outcome in work(read_letter, asked, processes=processes, progress=None, describe=level):
            if outcome.value is None:
                sys.exit(f"letter {outcome.item}: {outcome.error}")
            seen += outcome.value[0]
            right.update(outcome.value[1])
            judged += outcome.value[2]
        auc, error = ranking(judged)
        rows = {name: 100 * right[name] / seen[name] for name in (*SHOWN, "rows", "rows invented", "letters")}
        table[level] = {**rows, "people": seen["rows"], "confidence AUC": auc, "confidence error": error}
    return pd.DataFrame(table)


def seconds(function: Callable[[], object], clock: Callable[[], float] = time.process_time, times: int = 2) -> float:
    """The best of several runs: CPU seconds of this process, which a busy machine hardly changes, or wall time."""
    taken = []
    for _ in range(times):
        start = clock()
        function()
        taken.append(clock() - start)
    return min(taken)


def scanned_pages(seed: int, count: int, folder: Path) -> tuple[list[Path], list[Page]]:
    """Files of clean scans in a folder, and their pages as pixels."""
    folder.mkdir()
    paths: list[Path] = []
    pages: list[Page] = []
    for letter in islice(letters(10**6, seed, levels=("clean",)), count):
        paths.append(folder / f"{len(paths)}{letter.suffix}")
        paths[-1].write_bytes(letter.data)
        pages += read_pages(paths[-1])
    return paths, pages


def bare_engine(pages: Sequence[Page]) -> Callable[[], object]:
    """PaddleOCR's own pipeline on the same models, threads and sizes, without anything of ours."""
    import paddleocr

    from ocr_sprint.documents.models import DETECTOR, RECOGNISER, model_folders

    folders = model_folders()
    threads = {"intra_op_num_threads": 1, "inter_op_num_threads": 1, "enable_cpu_mem_arena": False}
    pipeline = paddleocr.PaddleOCR(
        text_detection_model_name=DETECTOR, text_detection_model_dir=str(folders.detector),
        text_recognition_model_name=RECOGNISER, text_recognition_model_dir=str(folders.recogniser),
        use_doc_orientation_classify=False, use_doc_unwarping=False, use_textline_orientation=False,
        text_det_limit_side_len=1152, text_det_limit_type="max", text_recognition_batch_size=1,
        device="cpu", engine="onnxruntime", engine_config=threads,
    )  # fmt: skip
    images = [np.repeat(page.pixels[..., None], 3, axis=2) for page in pages if page.pixels is not None]
    return lambda: [pipeline.predict(image) for image in images]


def read_all(paths: Sequence[Path], processes: int) -> Callable[[], object]:
    """The whole pipeline on files, through `work`."""
    return lambda: list(work(partial(process, name="paddle"), paths, processes=processes, progress=False))


def speed(seed: int, count: int, folder: Path) -> pd.DataFrame:
    """CPU seconds per page (wall time where it says so), and each as a ratio to the bare engine in the same run."""
    paths, pages = scanned_pages(seed, count, folder / "scanned")
    engine("paddle")
    bare = bare_engine(pages)
    read = [read_page(page) for page in pages]
    digital = digital_letters(seed, 20, folder / "digital")
    digital_pages = sum(len(list(read_pages(path))) for path in digital)
    wall = {n: seconds(read_all(paths, n), time.perf_counter, 1) / len(pages) for n in (1, 2)}
    rows = {
        "bare PaddleOCR": seconds(bare) / len(pages),
        "pages from files": seconds(lambda: [list(read_pages(path)) for path in paths]) / len(pages),
        "recognition with restored spaces": seconds(lambda: [read_page(page) for page in pages]) / len(pages),
        "rules (layout to confidence)": seconds(lambda: extract(read)) / len(pages),
        "whole pipeline": seconds(lambda: [process(path) for path in paths]) / len(pages),
        "born-digital, whole pipeline": seconds(lambda: [process(path) for path in digital]) / digital_pages,
        "wall time, 1 process": wall[1],
        "wall time, 2 processes with their start": wall[2],
    }
    table = pd.DataFrame({"seconds per page": rows})
    table["of the bare engine"] = table["seconds per page"] / rows["bare PaddleOCR"]
    table["pages per second"] = 1 / table["seconds per page"]
    return table


def digital_letters(seed: int, count: int, folder: Path) -> list[Path]:
    """Files of born-digital letters in a folder."""
    folder.mkdir()
    made: list[Letter] = list(letters(count, seed, levels=("digital",)))
    for index, letter in enumerate(made):
        (folder / f"{index}.pdf").write_bytes(letter.data)
    return sorted(folder.iterdir())


def main() -> None:
    """Print one of the two tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "speed"), nargs="?", default="speed")
    parser.add_argument("--n", type=whole(), default=100, help="letters per level; or files for the speed, six at most")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--processes", type=whole(), default=2)
    asked = parser.parse_args()
    if asked.what == "accuracy":
        table = accuracy(asked.n, asked.seed, asked.processes)
    else:
        with tempfile.TemporaryDirectory() as folder:
            table = speed(asked.seed, min(asked.n, 6), Path(folder))
    print(table.to_markdown(floatfmt=".3f"))


if __name__ == "__main__":
    main()
