"""Files: every line is accounted for, and a file is whole or not there."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_sprint.core import files
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.files import Quarantine, atomic_writer, file_sha256, read_jsonl

SUFFIXES = ("", ".gz", ".zst")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, data: bytes) -> None:
    with atomic_writer(path) as out:
        out.write(data)


# What stands between two line breaks: JSON and rubbish in every mixture.
pieces = st.lists(
    st.binary(max_size=12).filter(lambda raw: b"\n" not in raw and not raw.startswith(b"\xef\xbb\xbf"))
    | st.sampled_from([b"", b" ", b"\r", b'{"a":1}', b'{"a":1,"a":2}', b"[1]\r", b"NaN", b"1", b"null"]),
    max_size=12,
)


@given(pieces, st.booleans(), st.sampled_from(SUFFIXES))
def test_every_line_is_good_or_rejected_and_none_is_lost(lines: list[bytes], ended: bool, suffix: str) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    with TemporaryDirectory() as name:
        path, rejected = Path(name) / f"in.jsonl{suffix}", Path(name) / "rejected.jsonl"
        write(path, data)
        with Quarantine(rejected) as quarantine:
            records = list(read_jsonl(path, quarantine))
        bad = [json.loads(line) for line in rejected.read_text().splitlines()]
    filled = [line for line in data.split(b"\n") if line.strip()]
    assert quarantine.read == len(filled) == len(records) + len(bad)
    assert quarantine.good == len(records)
    assert quarantine.rejected.total() == len(bad)
    found = {record.offset: record.raw for record in records}
    for line in bad:
        raw = base64.b64decode(line["base64"]) if line["text"] is None else line["text"].encode()
        assert found.setdefault(line["offset"], raw) == raw
    assert [found[offset] for offset in sorted(found)] == [line.removesuffix(b"\r") for line in filled]
    for offset, raw in found.items():
        assert data[offset : offset + len(raw)] == raw


@given(st.binary(), st.sampled_from(SUFFIXES))
def test_round_trip_through_every_format(data: bytes, suffix: str) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / f"file{suffix}"
        write(path, data)
        with files.open_plain(path) as file:
            assert file.read() == data


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_content_gives_the_same_bytes(folder: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write(folder / (name + suffix), b"AIPDA" * 1000)
        os.utime(folder / (name + suffix), (0, 0))
    assert file_sha256(folder / f"a{suffix}") == file_sha256(folder / f"b{suffix}")


@pytest.mark.usefixtures("folder")
def test_line_numbers_count_blank_lines() -> None:
    Path("in.jsonl").write_bytes(b"\n1\n\n2")
    assert [(r.number, r.offset, r.value) for r in read_jsonl(Path("in.jsonl"))] == [(2, 1, 1), (4, 4, 2)]


@pytest.mark.usefixtures("folder")
def test_the_first_bad_line_is_named_when_there_is_no_quarantine() -> None:
    Path("in.jsonl").write_bytes(b'1\n{"a":1,"a":2}\n')
    records = read_jsonl(Path("in.jsonl"))
    assert next(records).value == 1
    with pytest.raises(DataError, match=r"^in\.jsonl, line 2: not a JSON value: the key 'a' occurs twice"):
        next(records)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("keep", [3, 20, -1])
def test_a_cut_file_is_an_error_even_with_a_quarantine(folder: Path, suffix: str, keep: int) -> None:
    path = folder / f"in.jsonl{suffix}"
    write(path, b"".join(b'{"n":%d}\n' % (n * 7919) for n in range(5000)))
    path.write_bytes(path.read_bytes()[:keep])
    with Quarantine(folder / "rejected.jsonl") as quarantine, pytest.raises(DataError, match="damaged after line"):
        list(read_jsonl(path, quarantine))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_what_its_suffix_says_is_an_error(folder: Path, suffix: str) -> None:
    path = folder / f"in.jsonl{suffix}"
    path.write_bytes(b'{"n":1}\n')
    with pytest.raises(DataError, match="damaged after line 0"):
        list(read_jsonl(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_were_appended_to_are_read_to_the_end(folder: Path, suffix: str) -> None:
    path = folder / f"in.jsonl{suffix}"
    write(path, b"1\n")
    path.write_bytes(path.read_bytes() * 2)
    assert [record.value for record in read_jsonl(path)] == [1, 1]


@pytest.mark.usefixtures("folder")
def test_a_line_without_an_end_is_an_error_not_a_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 100)
    Path("in.jsonl").write_bytes(b"1\n" + b" " * 98 + b"2\n")
    assert [record.value for record in read_jsonl(Path("in.jsonl"))] == [1, 2]
    Path("in.jsonl").write_bytes(b"1\n" + b" " * 99 + b"2\n")
    with pytest.raises(DataError, match="line 2: longer than 100 bytes"):
        list(read_jsonl(Path("in.jsonl")))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_of_several_files_the_one_that_does_not_fit_is_named(folder: Path, suffix: str) -> None:
    full = folder / f"full{suffix}"
    full.symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        atomic_writer(full) as first,
        atomic_writer(folder / "fits.jsonl") as second,
    ):
        second.write(b"1\n")
        first.write(os.urandom(300_000))
    assert caught.value.filename == str(full)


@pytest.mark.usefixtures("folder")
def test_an_empty_quarantine_replaces_an_old_one() -> None:
    Path("rejected.jsonl").write_text("from last week\n")
    with Quarantine(Path("rejected.jsonl")) as quarantine:
        pass
    assert Path("rejected.jsonl").read_text() == ""
    assert quarantine.summary() == "read 0, used 0, rejected 0"


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_leaves_the_old_file(folder: Path, suffix: str, error: type[BaseException]) -> None:
    path = folder / f"out{suffix}"
    write(path, b"old")
    before = path.read_bytes()
    with pytest.raises(error), atomic_writer(path) as out:
        out.write(b"new" * 100_000)
        raise error
    assert path.read_bytes() == before
    assert leftovers(folder) == []


def test_a_killed_writer_leaves_the_old_file(folder: Path) -> None:
    write(folder / "out", b"old")
    script = (
        "import os, signal; from pathlib import Path; from ocr_sprint.core.files import atomic_writer\n"
        "with atomic_writer(Path('out')) as out:\n"
        "    out.write(b'new' * 1_000_000); out.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(files.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env={**os.environ, "PYTHONPATH": root}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert Path("out").read_bytes() == b"old"
    assert len(leftovers(folder)) == 1


def test_the_disk_has_the_file_before_the_name_and_then_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def fsync(number: int) -> None:
        kind = os.fstat(number).st_mode
        steps.append("folder" if stat.S_ISDIR(kind) else f"file of {os.fstat(number).st_size} bytes")

    replace = Path.replace

    def renamed(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renamed)
    write(folder / "out", b"12345")
    assert steps == ["file of 5 bytes", "rename", "folder"]


def test_a_replaced_file_keeps_its_permissions_and_a_new_one_follows_the_umask(folder: Path) -> None:
    Path("private").touch(mode=0o600)
    write(folder / "private", b"x")
    assert stat.S_IMODE(Path("private").stat().st_mode) == 0o600
    before = os.umask(0o027)
    try:
        write(folder / "new", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("new").stat().st_mode) == 0o640


def test_a_link_stays_a_link(folder: Path) -> None:
    Path("real").mkdir()
    Path("link").symlink_to("real/file")
    write(folder / "link", b"x")
    assert Path("link").is_symlink()
    assert Path("real/file").read_bytes() == b"x"


def test_a_pipe_is_written_straight_through(folder: Path) -> None:
    os.mkfifo("pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    write(folder / "pipe", b"through")
    reader.join(10)
    assert got == [b"through"]
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_two_writers_at_once_each_write_a_whole_file(folder: Path) -> None:
    with atomic_writer(folder / "out") as one, atomic_writer(folder / "out") as two:
        one.write(b"one")
        two.write(b"two")
    assert Path("out").read_bytes() == b"one"
    assert leftovers(folder) == []


def test_where_no_file_can_be_is_a_usage_error(folder: Path) -> None:
    Path("file").touch()
    for path, reason in ((folder, "is a folder"), (folder / "file" / "x", "cannot be written")):
        with pytest.raises(UsageError, match=reason):
            write(path, b"x")


def test_a_very_long_name_is_no_obstacle(folder: Path) -> None:
    name = "n" * 250
    write(folder / name, b"x")
    assert (folder / name).read_bytes() == b"x"


@pytest.mark.usefixtures("folder")
def test_reading_is_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(path: Path) -> Iterator[files.Line]:
        number = 0
        while True:
            number += 1
            yield files.Line(path, number, 0, b"1")

    monkeypatch.setattr(files, "read_lines", endless)
    records = read_jsonl(Path("endless.jsonl"))
    assert [next(records).number for _ in range(3)] == [1, 2, 3]
