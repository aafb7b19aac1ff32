"""Measure the embedded student: seconds to fit and predict, memory and error, beside scikit-learn in the same run.

    python bench/student.py fit --n 20000          texts of 3 KB and eight dimensions; CPU and wall seconds
    python bench/student.py peers --n 2000         the same task for TfidfVectorizer and Ridge, each in its own process
    python bench/student.py gain --seeds 20        what choosing by errors gains over lot, with clean and wrong labels

Two threads of BLAS; texts are fictitious and seeded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np

from ocr_sprint.core.report import to_markdown
from ocr_sprint.ground_truth.scores import ScoreScale
from ocr_sprint.training.fiction import DIMENSIONS, fictitious_articles
from ocr_sprint.training.student import fit_student, predict_texts
from ocr_sprint.training.texts import Texts

WORDS = 430  # about 3 KB


def make(count: int, seed: int, words: int = WORDS) -> Texts:
    """Texts with eight dimensions: four of the articles', and four mixtures of them."""
    articles = list(fictitious_articles(count, seed=seed, words=words))
    own = np.array([[article["uplifting_analysis"][name] for name in DIMENSIONS] for article in articles])
    scores = np.hstack([own, (own + np.roll(own, 1, axis=1)) / 2])
    names = (*DIMENSIONS, *(f"mixed_{name}" for name in DIMENSIONS))
    ids, texts = (tuple(article[key] for article in articles) for key in ("id", "text"))
    return Texts(ids, texts, scores, names, ScoreScale())


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call gives, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, {"wall": round(time.perf_counter() - wall, 2), "cpu": round(time.process_time() - cpu, 2)}


def tell(**figures: Any) -> None:
    """One line of JSON, with the memory that was needed so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "peak_mb": round(peak), "load": round(os.getloadavg()[0], 1)}), flush=True)


def fit(count: int) -> None:
    """The student: fit with out-of-fold predictions and calibration, then predict."""
    train, test = make(count, 1), make(2000, 2)
    (student, own), seconds = timed(lambda: fit_student(train, np.arange(count)))
    size = sum(map(len, train.texts)) / count
    tell(who="student", texts=count, characters=round(size), fit=seconds, features=student.features.sizes)
    found, seconds = timed(lambda: predict_texts(student, test.texts))
    errors = [
        float(np.abs(said - true).mean()) for said, true in ((own.scores, train.scores), (found.scores, test.scores))
    ]
    rate = {name: round(len(test) / value) for name, value in seconds.items()}
    tell(who="student", predict=seconds, per_second=rate, error_out_of_fold=errors[0], error_test=errors[1])


def peer(name: str, count: int) -> None:
    """TfidfVectorizer and Ridge: one fit at one penalty, no out-of-fold predictions, no calibration."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32)
    model = make_pipeline(words if name == "words" else make_union(words, parts), Ridge(alpha=1.0, solver="sparse_cg"))
    train, test = make(count, 1), make(2000, 2)
    _, seconds = timed(lambda: model.fit(train.texts, train.scores))
    tell(who=f"scikit-learn {name}", texts=count, fit=seconds)
    found, seconds = timed(lambda: model.predict(test.texts))
    rate = {name: round(len(test) / value) for name, value in seconds.items()}
    error = float(np.abs(found - test.scores).mean())
    tell(who=f"scikit-learn {name}", predict=seconds, per_second=rate, error_test=error)


def gain(seeds: int) -> None:
    """What choosing by errors gains, at several shares of wrong labels."""
    from ocr_sprint.core.report import Report, Section
    from ocr_sprint.training.simulation import outcome_table, simulate

    sections = []
    for wrong in (0.0, 0.1, 0.3):
        articles = list(fictitious_articles(900, seed=1, words=60, mislabelled=wrong))
        scores = np.array([[article["uplifting_analysis"][name] for name in DIMENSIONS[:3]] for article in articles])
        ids, texts = (tuple(article[key] for article in articles) for key in ("id", "text"))
        found = simulate(Texts(ids, texts, scores, DIMENSIONS[:3], ScoreScale()), np.arange(900), seeds=seeds)
        sections.append(Section(f"{wrong:.0%} of the labels wrong", outcome_table(found)))
    print(to_markdown(Report("Gain over lot", f"{seeds} seeds, test labels as wrong as the others.", sections)))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "peers", "peer-words", "peer-union", "gain"])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    if given.what == "fit":
        fit(given.n)
    elif given.what == "gain":
        gain(given.seeds)
    elif given.what == "peers":
        for what in ("fit", "peer-words", "peer-union"):
            subprocess.run([sys.executable, __file__, what, "--n", str(given.n)], check=True)
    else:
        peer(given.what.removeprefix("peer-"), given.n)


if __name__ == "__main__":
    main()
