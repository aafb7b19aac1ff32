"""Labelled records: every shape of score, exact accounting, sidecars, and lines that come out as they went in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.files import atomic_writer, read_lines
from ocr_sprint.ground_truth.records import read_records, write_lines
from ocr_sprint.ground_truth.scores import Fault, ScoreScale, find_layout, number_in
from ocr_sprint.ground_truth.sidecar import load_sidecar, sidecar_path

SCORES = {"agency": 7, "wonder": 3.5, "justice": 0}


def written(path: Path, records: Iterable[Any]) -> Path:
    """A JSONL file of these values; bytes are written as they are."""
    with atomic_writer(path) as out:
        for record in records:
            out.write((record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n")
    return path


def labelled(index: int, **scores: object) -> dict[str, object]:
    return {"id": f"a{index}", "source": f"s{index % 2}", "x_analysis": {**SCORES, **scores}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_labels_in_another_encoding_are_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes("".join(json.dumps(labelled(index)) + "\n" for index in range(3)).encode(encoding))
    with pytest.raises(DataError, match=r"labels\.jsonl, line 1: not UTF-8 but UTF-16"):
        read_records([path])


def test_a_file_without_any_json_is_named_with_its_first_line(tmp_path: Path) -> None:
    path = written(tmp_path / "labels.jsonl", [b"id,agency", b"a1,7"])
    with pytest.raises(DataError, match=r"labels\.jsonl, line 1: not a JSON value .*none of its lines can be read"):
        read_records([path])
    written(path, [b"id,agency", *map(labelled, range(3))])
    assert read_records([path])[1].rejected == {"not a JSON value": 1}


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", **SCORES},
        {"id": "a", "dimensions": SCORES},
        {"id": "a", "scores": SCORES},
        {"id": "a", "analysis": SCORES},
        {"id": "a", "uplifting_analysis": SCORES},
        {"id": "a", "uplifting_analysis": {"dimensions": SCORES, "tokens": 900}},
        {"id": "a", "uplifting_analysis": {k: {"score": v, "reason": "…"} for k, v in SCORES.items()}},
        {"id": "a", "uplifting_analysis": {"scores": {k: {"score": v} for k, v in SCORES.items()}, "attempts": 1}},
    ],
)
@pytest.mark.parametrize("named", [(), tuple(SCORES)])
def test_scores_are_found_in_every_shape(record: Any, named: Sequence[str]) -> None:
    layout = find_layout([record], named)
    assert layout.dimensions == tuple(SCORES)
    assert layout.scores(record) == [7000, 3500, 0]


def test_files_of_different_shapes_are_read_together(tmp_path: Path) -> None:
    shapes = [{"id": "a", **SCORES}, {"id": "b", "x_analysis": SCORES}, {"id": "c", "dimensions": SCORES}]
    records, _ = read_records([written(tmp_path / "a.jsonl", shapes)])
    assert records.ids == ["a", "b", "c"]
    assert (records.scores() == [7, 3.5, 0]).all()


def test_a_ground_truth_export_is_read(tmp_path: Path) -> None:
    lines = [
        {"job_id": f"j{i}", "confidence": i / 10, "final_result": {"header": {"satuan": f"Polres {i % 3}"}}}
        for i in range(10)
    ]
    layout = find_layout(lines, ["confidence"], scale=ScoreScale(0, 1))
    records, account = read_records([written(tmp_path / "corpus.jsonl", lines)], layout)
    assert (account.used, records.columns["source"].names) == (10, ("Polres 0", "Polres 1", "Polres 2"))
    assert records.scores().ravel().tolist() == [i / 10 for i in range(10)]


BAD = [
    (b'{"id": "x"', "not a JSON value"),
    (b"[1]", "no id"),
    (labelled(1, agency=None), "missing dimension"),
    (labelled(1, agency="7"), "score is not a number"),
    (labelled(1, agency=True), "score is not a number"),
    (labelled(1, agency={"score": None}), "score is not a number"),
    (labelled(1, agency=10.001), "score off the scale"),
    (labelled(1, agency=-1), "score off the scale"),
    ({**labelled(1), "id": ""}, "no id"),
    ({**labelled(1), "id": None}, "no id"),
    (labelled(0), "duplicate id"),
]


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_a_bad_record_is_counted_with_its_place(tmp_path: Path, record: object, reason: str) -> None:
    path = written(tmp_path / "a.jsonl", [labelled(0), b"", record, labelled(2)])
    records, account = read_records([path])
    assert records.ids == ["a0", "a2"]
    assert (account.read, account.used, dict(account.rejected)) == (3, 2, {reason: 1})
    assert account.examples[reason][0].startswith(f"{path}, line 3: ")
    assert "\n" not in account.summary()


@given(st.lists(st.sampled_from([*(record for record, _ in BAD), labelled(5), labelled(6)]), max_size=30))
def test_read_is_used_and_rejected(tmp_path_factory: pytest.TempPathFactory, lines: list[object]) -> None:
    path = written(tmp_path_factory.mktemp("account") / "a.jsonl", [labelled(0), *lines])
    records, account = read_records([path], sidecar=False)
    assert account.read == len(lines) + 1 == account.used + account.rejected.total()
    assert account.used == len(records) == len(set(records.ids))


def test_duplicates_are_found_across_files(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{name}.jsonl", [labelled(i) for i in range(3)]) for name in "ab"]
    records, account = read_records(paths)
    assert (records.ids, account.rejected["duplicate id"]) == (["a0", "a1", "a2"], 3)


def test_nothing_usable_is_one_line(tmp_path: Path) -> None:
    layout = find_layout([labelled(0)])
    path = written(tmp_path / "a.jsonl", [{"id": "a"}])
    with pytest.raises(DataError, match=r"no record can be used; read 1, used 0, rejected 1; missing dimension: 1"):
        read_records([path], layout)


@pytest.mark.parametrize(("name", "hint"), [("agncy", "did you mean agency"), ("zzz", "there are agency, wonder")])
def test_an_unknown_dimension_is_named(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        find_layout([labelled(0)], ["agency", name])


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_lines_come_out_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    odd = [
        b'{"id":"a0",  "agency": 1e0, "text": "caf\\u00e9"}',
        '{"id":"a1","agency":2,"text":"café \u2028 ✓"}'.encode(),
        b' {"id": "a2", "agency": 3}\r',
        b'{"id":"a3","agency":4.50}',
    ]
    path = written(tmp_path / f"a{suffix}", odd)
    records, _ = read_records([path])
    write_lines(records, np.array([3, 0, 2]), tmp_path / "out.jsonl")
    assert [line.raw for line in read_lines(tmp_path / "out.jsonl")] == [odd[0], odd[2].rstrip(b"\r"), odd[3]]


def test_a_file_that_changed_is_not_copied_from(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [labelled(i) for i in range(3)])
    records, _ = read_records([path])
    written(path, [labelled(2), labelled(1), labelled(0)])
    with pytest.raises(DataError, match="the file has changed since it was read"):
        write_lines(records, np.array([2]), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def same(one: Any, other: Any) -> bool:
    return (
        one.ids == other.ids
        and one.sources == other.sources
        and all((getattr(one, n) == getattr(other, n)).all() for n in ("ticks", "line", "offset", "length", "file"))
        and {n: c.texts() for n, c in one.columns.items()} == {n: c.texts() for n, c in other.columns.items()}
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_the_sidecar_says_what_the_file_says(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", [labelled(i, agency=i % 11 / 2) for i in range(50)] + [BAD[0][0]])
    first, account = read_records([path])
    assert load_sidecar(path, first.layout) is not None
    second, again = read_records([path])
    assert same(first, second)
    assert account == again
    without, _ = read_records([path], sidecar=False)
    assert same(first, without)


def test_a_changed_file_or_layout_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [labelled(0), labelled(1)])
    read_records([path])
    os.utime(path, ns=(1, 1))
    assert load_sidecar(path, find_layout([labelled(0)])) is None
    assert read_records([path], find_layout([labelled(0)], ["wonder"]))[0].ticks.tolist() == [[3500], [3500]]
    sidecar_path(path).write_bytes(b"PAR1 no more")
    assert read_records([path])[0].ids == ["a0", "a1"]


def test_a_folder_that_cannot_be_written_needs_no_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> Any:
        raise UsageError(f"{path}: cannot be written")

    monkeypatch.setattr("ocr_sprint.ground_truth.sidecar.atomic_writer", refused)
    path = written(tmp_path / "a.jsonl", [labelled(0)])
    assert read_records([path])[0].ids == ["a0"]
    assert not sidecar_path(path).exists()


@given(st.floats(0, 10))
def test_a_bin_is_the_nearest_whole_number(value: float) -> None:
    scale = ScoreScale()
    tick = scale.tick(value)
    assert abs(float(scale.values(tick)) - value) <= 0.0005 + 1e-9
    assert int(scale.bin_of(tick)) == int(np.floor(float(scale.values(tick)) + 0.5 + 1e-12))


@pytest.mark.parametrize("scale", [ScoreScale(), ScoreScale(1, 10), ScoreScale(0, 1), ScoreScale(-1, 1)])
def test_bins_lie_inside_the_scale(scale: ScoreScale) -> None:
    ends = scale.bin_of([scale.tick(scale.low), scale.tick(scale.high)])
    assert ends.tolist() == [0, scale.bins - 1]
    assert (scale.label(0), scale.label(scale.bins - 1)) == (f"{scale.low:g}", f"{scale.high:g}")


@pytest.mark.parametrize("value", [None, True, "7", [], {}, {"score": "7"}, {"score": {"score": 7}}])
def test_what_is_no_number_is_none(value: Any) -> None:
    assert number_in(value) is None
    assert find_layout([labelled(0)]).scores(labelled(1, agency=value)) == (
        Fault("missing dimension", "agency")
        if value is None
        else Fault("score is not a number", f"agency is {str(value)!r}")
    )


def test_a_file_without_usable_records_has_no_sidecar(tmp_path: Path) -> None:
    good, bad = written(tmp_path / "a.jsonl", [labelled(0)]), written(tmp_path / "b.jsonl", [{"id": "b"}])
    for _ in range(2):
        records, account = read_records([good, bad], find_layout([labelled(0)]))
        assert (records.ids, account.read, account.used) == (["a0"], 2, 1)
    assert sidecar_path(good).exists()
    assert not sidecar_path(bad).exists()
