"""Samples: the same from every order of files and lines, each text once, in memory that does not grow."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.files import Quarantine, atomic_writer
from ocr_sprint.ground_truth import prompts
from ocr_sprint.ground_truth.pool import TEXT_FIELDS
from ocr_sprint.ground_truth.sample import draw_sample
from ocr_sprint.training.texts import text_of


def write(path: Path, rows: list[Any]) -> Path:
    with atomic_writer(path) as out:
        out.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    return path


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"a-{n}", "title": f"Well {n}", "content": f"Forty families dug well {n}."} for n in range(count)]


def ids(patterns: list[str], size: int | None, seed: int | None = 7) -> list[str]:
    return [article.id for article in draw_sample(patterns, size, seed=seed).articles]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.randoms(use_true_random=False), parts=st.integers(1, 5), repeats=st.integers(0, 60))
def test_neither_order_nor_files_nor_repeats_matter(
    tmp_path: Path, order: random.Random, parts: int, repeats: int
) -> None:
    first = write(tmp_path / "whole.jsonl", rows(80))
    mixed = rows(80) + [{**row, "id": f"zz-{row['id']}"} for row in order.sample(rows(80), repeats)]
    order.shuffle(mixed)
    for part in range(5):
        suffix = [".jsonl", ".jsonl.gz", ".jsonl.zst"][part % 3]
        write(tmp_path / f"part-{part}{suffix}", mixed[part::parts] if part < parts else [])
    assert ids([str(tmp_path / "part-*")], 10) == ids([str(first)], 10)


def test_a_larger_sample_begins_with_the_smaller_one_also_when_the_source_is_small(tmp_path: Path) -> None:
    path = str(write(tmp_path / "raw.jsonl", rows(300)))
    all_of_them = ids([path], 300)
    assert sorted(all_of_them) == sorted(row["id"] for row in rows(300))
    for size in (1, 2, 50, 299):
        assert ids([path], size) == all_of_them[:size]


def test_a_source_that_grows_changes_the_sample_only_where_new_texts_enter(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.jsonl", rows(200))
    before = ids([str(path)], 20)
    write(path, rows(260))
    after = ids([str(path)], 20)
    entered = [name for name in after if name not in before]
    assert all(int(name[2:]) >= 200 for name in entered)
    assert [name for name in after if name in before] == [name for name in before if name in after]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not JSON", "not a JSON value"),
        ('{"id": "a", "text": NaN}', "not a JSON value"),
        ('{"id": "a", "text": "\\ud800"}', "not a JSON value"),
        ('{"id": "a", "text": 1e999}', "not a JSON value"),
        pytest.param("[" * 2000 + "]" * 2000, "not a JSON value", id="deep"),
        pytest.param("\0".join('{"id": "a", "text": "x"}'), "not a JSON value", id="UTF-16"),
        ("[1]", "not an object"),
        ('{"text": "x"}', "no id"),
        ('{"id": "", "text": "x"}', "no id"),
        ('{"id": 1.5, "text": "x"}', "no id"),
        ('{"id": "a"}', "no text"),
        ('{"id": "a", "content": " \\n"}', "no text"),
        ('{"id": "a", "id": "b", "text": "x"}', "occurs twice"),
        ('{"id": "a-1", "text": "another text"}', "the same id 'a-1'"),
    ],
)
@pytest.mark.parametrize("seed", [7, None])
def test_a_bad_line_is_named_or_set_aside(tmp_path: Path, line: str, message: str, seed: int | None) -> None:
    path = write(tmp_path / "raw.jsonl", rows(3))
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DataError) as caught:
        draw_sample([str(path)], 10, seed=seed)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    with Quarantine(tmp_path / "rejected") as quarantine:
        sample = draw_sample([str(path)], 10, seed=seed, quarantine=quarantine)
    assert (len(sample.articles), quarantine.rejected.total()) == (3, 1)
    assert quarantine.read == 4


def test_a_reserve_takes_the_place_of_an_id_that_is_taken(tmp_path: Path) -> None:
    mixed = [row | {"id": f"a-{n // 2}"} for n, row in enumerate(rows(40))]
    path = write(tmp_path / "raw.jsonl", mixed)
    with Quarantine(tmp_path / "rejected") as quarantine:
        sample = draw_sample([str(path)], 12, seed=7, quarantine=quarantine)
    assert len({article.id for article in sample.articles}) == 12


def test_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("deep/er/raw[1].jsonl"), rows(2))
    write(Path("deep/raw.jsonl"), rows(3))
    assert len(ids(["deep/**/*.jsonl"], None)) == 3
    assert len(ids(["deep/er/raw[1].jsonl"], None)) == 2
    assert len(ids([str(tmp_path / "deep/*.jsonl"), "deep/raw.jsonl"], None)) == 3
    with pytest.raises(UsageError, match="deep/none: there is no such file"):
        ids(["deep/**/*.jsonl", "deep/none"], None)


def test_a_damaged_file_is_an_error_even_with_a_quarantine(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.jsonl.gz", rows(500))
    path.write_bytes(path.read_bytes()[:-20])
    with Quarantine(tmp_path / "rejected") as quarantine, pytest.raises(DataError, match="damaged after line"):
        draw_sample([str(path)], 10, seed=1, quarantine=quarantine)


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    code = (
        "import sys; from ocr_sprint.ground_truth.sample import draw_sample; draw_sample([sys.argv[1]], 50, seed=1);"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peaks = []
    for count in (1_000, 60_000):
        path = write(tmp_path / f"{count}.jsonl", [{**row, "text": "word " * 100} for row in rows(count)])
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert path.stat().st_size > 30 * 2**20
    assert peaks[1] - peaks[0] < 6 * 1024  # KB


@pytest.mark.parametrize("name", sorted({*TEXT_FIELDS, *prompts.TEXT_FIELDS}))
def test_who_labels_finds_the_text_where_a_student_finds_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "raw.jsonl", [{"id": "a-1", name: "Forty families dug a well."}])
    article = draw_sample([str(path)], None).articles[0]
    asked = prompts.fill(prompts.Template("", "{{content}}"), article.value)
    assert (asked, text_of(article.value)) == ("Forty families dug a well.",) * 2


def test_a_notebook_shows_one_line_of_an_error_that_its_reader_can_mend(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    shell.run_cell("from ocr_sprint.ground_truth.corpus import labeled_files\nlabeled_files(['gone.jsonl'])")
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert "UsageError: gone.jsonl: there is no such file; name JSON lines" in shown
    assert f"(looked for from {Path.cwd()})" in shown
