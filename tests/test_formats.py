"""Parquet, CSV and Hugging Face: nothing lost, nothing guessed, no formulas, flat memory, whole files."""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
import pyarrow
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_samples import histories, values

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review.formats import (
    CSV_COLUMNS,
    csv_cell,
    features,
    ground_truth_columns,
    load_ground_truth,
    parquet_lines,
    write_csv,
    write_parquet,
)
from ocr_sprint.review.lines import LINE_KEYS

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


def line(**others):
    """A ground-truth line; `others` replace single values."""
    values = {
        "job_id": "job-1",
        "filename": "sprint-001.pdf",
        "source_kind": "pdf",
        "approved": True,
        "reviewed_by": "reviewer-a",
        "reviewed_at": "2025-06-01T10:15:00Z",
        "created_at": "2025-05-28T08:02:17Z",
        "initial_result": {"header": {"perihal": None}},
        "final_result": {"header": {"perihal": "Patroli", "satuan": "POLRES GARUT"}},
        "corrections": [],
        "review_flags": [],
        "confidence": 0.78,
    }
    return orjson.dumps({**values, **others}, option=orjson.OPT_APPEND_NEWLINE)


def correction(path="header.perihal", old=None, new="Patroli", reason=None):
    keys = ("field_path", "old_value", "new_value", "corrected_by", "reason", "corrected_at")
    return dict(zip(keys, (path, old, new, "reviewer-a", reason, "2025-05-30T14:00:00Z"), strict=True))


@st.composite
def lines(draw):
    """A line as strange as the replay allows."""
    initial, events, final = draw(histories(max_events=3))
    made = [correction(event.field_path, event.old_value, event.new_value, draw(st.none() | texts)) for event in events]
    failed = draw(st.booleans()) and not made
    return line(
        filename=draw(texts),
        approved=draw(st.booleans()),
        reviewed_by=draw(st.none() | texts),
        initial_result=None if failed else initial,
        final_result=None if failed else final,
        corrections=made,
        review_flags=draw(st.lists(texts, max_size=2)),
        confidence=draw(st.none() | st.floats(0, 1)),
    )


@pytest.fixture
def corpus():
    # The traps of schemas that are guessed: null first and typed later, several types, keys that come late,
    # numbers and truth values written as text, empty containers.
    olds = [
        None,
        "77060000",
        "01060000",
        "true",
        "null",
        "[1]",
        "",
        1,
        1.5,
        False,
        ["a"],
        {"nrp": "1"},
        [],
        {},
        2**64 - 1,
    ]
    first = [line(job_id=f"job-{number}", reviewed_by=None, initial_result=None) for number in range(30)]
    later = [
        line(corrections=[correction("x", old, olds[i - 1])], initial_result={"x": old}, final_result={f"k{i}": old})
        for i, old in enumerate(olds)
    ]
    return first + later


@settings(max_examples=60)
@given(st.lists(lines(), max_size=4))
def test_parquet_gives_back_the_same_bytes(corpus):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.parquet")
        assert write_parquet(corpus, path) == len(corpus)
        assert list(parquet_lines(path)) == corpus
        footer = pq.read_metadata(path).metadata
        assert footer[b"ocr_sprint.lines"] == str(len(corpus)).encode()
        assert footer[b"ocr_sprint.sha256"] == sha256_hex(b"".join(corpus)).encode()


def test_parquet_has_one_schema_whatever_the_lines_hold(tmp_path, corpus):
    schemas = []
    for name, part in (("nulls", corpus[:30]), ("all", corpus), ("none", [])):
        write_parquet(part, tmp_path / f"{name}.parquet")
        schemas.append(pq.read_schema(tmp_path / f"{name}.parquet"))
    assert schemas[0].equals(schemas[1]) and schemas[1].equals(schemas[2])
    assert tuple(schemas[0].names) == LINE_KEYS


def test_parquet_has_row_groups_and_zstd(tmp_path):
    path = tmp_path / "corpus.parquet"
    write_parquet((line(job_id=str(number)) for number in range(2500)), path)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [1000, 1000, 500]
    assert {metadata.row_group(0).column(i).compression for i in range(metadata.num_columns)} == {"ZSTD"}
    assert metadata.row_group(2).column(0).statistics.has_min_max


def test_long_lines_make_smaller_row_groups(tmp_path):
    path = tmp_path / "corpus.parquet"
    long = line(final_result={"pertimbangan": "x" * 3_000_000})
    write_parquet([long] * 7, path)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 3, 1]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_datasets_holds_what_the_lines_say(tmp_path, corpus, suffix):
    from ocr_sprint.core.files import atomic_writer

    path = tmp_path / f"corpus{suffix}"
    if suffix == ".parquet":
        write_parquet(corpus, path)
    else:
        with atomic_writer(path) as file:
            file.writelines(corpus)
    dataset = load_ground_truth(path, tmp_path / "cache")
    assert dataset.features == features()
    wanted = [json.loads(text) for text in corpus]
    # By JSON text, since to Python 1, 1.0 and True are equal.
    assert [json.dumps(row) for row in dataset] == [json.dumps(row) for row in wanted]


@settings(max_examples=15)
@given(st.lists(lines(), min_size=1, max_size=3))
def test_datasets_holds_strange_lines_too(corpus):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl")
        path.write_bytes(b"".join(corpus))
        dataset = load_ground_truth(path, Path(folder, "cache"))
        rows = list(dataset)
        del dataset
    assert [orjson.dumps(row) for row in rows] == [orjson.dumps(orjson.loads(text)) for text in corpus]


def test_a_changed_file_is_not_taken_from_the_cache(tmp_path):
    path = tmp_path / "corpus.jsonl"
    seen = []
    for number in (1, 2):
        path.write_bytes(line(job_id=f"job-{number}"))
        seen.append(load_ground_truth(path, tmp_path / "cache")[0]["job_id"])
    assert seen == ["job-1", "job-2"]


@pytest.mark.parametrize("write", [write_parquet, write_csv])
def test_a_failure_leaves_the_file_before_it(tmp_path, write):
    def broken():
        yield line()
        raise OSError("the connection was lost")

    path = tmp_path / "corpus.file"
    write([line()], path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="connection"):
        write(broken(), path)
    with pytest.raises(DataError, match="line 2 is no ground-truth line"):
        write([line(), b'{"job_id": 1}\n'], path)
    with pytest.raises(DataError, match="line 1 is no JSON"):
        write([b"{"], path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["corpus.file"]


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "corpus.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(parquet_lines(path))
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_ground_truth(path, tmp_path / "cache")
    with pytest.raises(DataError, match="cannot be read"):
        load_ground_truth(tmp_path / "none.jsonl")
    pq.write_table(pyarrow.table({"x": [1]}), path)
    with pytest.raises(DataError, match="not those of ground-truth lines"):
        list(parquet_lines(path))
    with pytest.raises(UsageError, match=r"name the file corpus\.parquet"):
        write_parquet([], tmp_path / "corpus.parquet.zst")


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_one_row_per_correction_and_every_letter(tmp_path, corpus):
    path = tmp_path / "corrections.csv"
    assert write_csv(corpus, path) == len(corpus)
    found = rows(path)
    expected = [max(1, len(json.loads(text)["corrections"])) for text in corpus]
    assert len(found) == sum(expected)
    assert tuple(found[0]) == CSV_COLUMNS
    corrected = [row for row in found if row["correction"]]
    wanted = [made for text in corpus for made in json.loads(text)["corrections"]]
    assert [json.loads(row["new_value"]) for row in corrected] == [made["new_value"] for made in wanted]
    assert path.read_bytes().startswith(b"\xef\xbb\xbfjob_id,")


def test_csv_names_the_letter_and_folds_the_field(tmp_path):
    path = tmp_path / "corrections.csv"
    made = [correction("personel[3].nrp", "7706OOOO", "77060000"), correction("no path..", 1, 2)]
    write_csv([line(corrections=made), line(final_result=None), line(final_result={"header": [1]})], path)
    found = rows(path)
    assert [row["field"] for row in found] == ["personel[*].nrp", "no path..", "", ""]
    assert [row["correction"] for row in found] == ["1", "2", "", ""]
    assert [row["satuan"] for row in found] == ["POLRES GARUT", "POLRES GARUT", "", ""]
    assert found[0]["new_value"] == '"77060000"'


@given(texts | values.map(str))
def test_no_cell_is_a_formula(text):
    cell = csv_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    assert "\0" not in cell
    assert cell.lstrip("'") == text.replace("\0", "\ufffd").lstrip("'")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠"])
@pytest.mark.parametrize("where", ["filename", "reviewed_by", "reason", "perihal", "field_path"])
def test_formulas_are_disarmed_in_every_column(tmp_path, start, where):
    attack = f'{start}cmd|"/C calc"!A0'
    made = correction(reason=attack if where == "reason" else None, path=attack if where == "field_path" else "a")
    others = {where: attack} if where in ("filename", "reviewed_by") else {}
    header = {"perihal": attack if where == "perihal" else "Patroli"}
    write_csv([line(corrections=[made], final_result={"header": header}, **others)], tmp_path / "x.csv")
    cell = rows(tmp_path / "x.csv")[0][where]
    assert cell[0] == ("\ufffd" if start == "\0" else "'")


MEMORY = """
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from ocr_sprint.review import formats
sys.path.insert(0, sys.argv[3])
from test_formats import correction, line
letter = {"untuk": ["melaksanakan tugas"] * 100}
made = [correction()]
text = line(initial_result=letter, final_result=letter, corrections=made)
getattr(formats, sys.argv[1])((text for _ in range(int(sys.argv[2]))), Path(sys.argv[4]))
print(getrusage(RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("write", ["write_parquet", "write_csv"])
def test_memory_does_not_grow_with_the_corpus(tmp_path, write):
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, write, str(count), str(Path(__file__).parent), str(tmp_path / "x.out")],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for count in (4_000, 24_000)
    ]
    assert peaks[1] - peaks[0] < 12, peaks  # 84 MB of lines more


def test_importing_the_room_imports_neither_arrow_nor_datasets():
    code = "import sys, ocr_sprint.review.formats; print({'pyarrow', 'datasets', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "set()"


def test_columns_keep_null_apart_from_the_text_null():
    columns = ground_truth_columns(line(corrections=[correction(old=None, new="null")]))
    assert [columns["corrections"][0][name] for name in ("old_value", "new_value")] == [None, '"null"']
