"""The command that exports a corpus: flags, streams, exit codes."""

import json
import os
import subprocess
import sys

import pytest
from export_samples import DAMAGE, by_hand, filled
from review_samples import Ticking, new_job

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.review.export import Filters, export_lines
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.store import open_store
from ocr_sprint.tools.export_ground_truth import main


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def run(*words, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, "-m", "ocr_sprint.tools.export_ground_truth", *map(str, words)]
    return subprocess.run(call, capture_output=True, env=environment, check=False, **options)


def test_the_command_writes_lines_to_a_pipe(store, url):
    filled(store)
    done = run("--store", url, "--print-stats", "--no-approved-only")
    assert done.returncode == 0
    assert done.stdout == b"".join(export_lines(store, ALL))
    assert json.loads(done.stderr)["total_jobs"] == 5


def test_a_reader_who_has_seen_enough_is_no_error(store, url):
    for number in range(300):
        store.add_job(**new_job(number, ocr_text="x"))
    words = [sys.executable, "-m", "ocr_sprint.tools.export_ground_truth", "--no-approved-only"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OCR_SPRINT_STORE": url}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert json.loads(process.stdout.readline())["filename"] == "sprint-000.pdf"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.fixture
def command(url, capsysbinary):
    """Run the command in this process; gives the exit code, standard output and standard error."""

    def call(*words):
        code = main(["--store", url, *map(str, words)])
        said = capsysbinary.readouterr()
        return code, said.out, said.err.decode()

    return call


def test_the_command_writes_a_file_and_prints_statistics(store, command, tmp_path):
    filled(store)
    out = tmp_path / "new folder" / "corpus.jsonl"
    code, data, said = command("--out", out, "--print-stats", "--has-corrections", "--limit", 1)
    assert code == 0
    assert out.read_bytes() == b"".join(export_lines(store, Filters(has_corrections=True, limit=1)))
    assert json.loads(data)["approved_jobs"] == 2
    assert "1 lines, sha256" in said


def test_an_export_of_nothing_says_how_many_letters_wait(store, command, tmp_path):
    for number in range(3):
        store.add_job(**new_job(number))
    said = "0 lines; 3 letters wait for approval, 0 are approved, 0 wait to be read\n"
    assert command() == (0, b"", said)
    code, out, err = command("--out", tmp_path / "corpus.jsonl")
    assert (code, out, err.splitlines(keepends=True)[1:]) == (0, b"", [said])
    assert "letters wait" not in command("--no-approved-only")[2]
    assert json.loads(command("--print-stats")[2])["total_jobs"] == 3


@pytest.mark.parametrize(
    "name", ["corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst", "corpus.csv", "corpus.parquet"]
)
def test_the_digest_that_is_said_of_the_file_is_the_files(store, command, tmp_path, name):
    filled(store)
    path = tmp_path / name
    assert command("--out", path, "--format", name.split(".")[1])[0] == 0
    said = command("--out", path, "--format", name.split(".")[1])[2]
    lines, of_file = (sha256_hex(raw) for raw in (b"".join(export_lines(store)), path.read_bytes()))
    both = f"sha256 of the lines {lines}, of the file {of_file}"
    assert said == f"wrote {path}: 2 lines, {f'sha256 {lines}' if name == 'corpus.jsonl' else both}\n"


def test_strict_ends_with_three_and_no_file(store, command, tmp_path):
    filled(store)
    by_hand(store, DAMAGE["uncorrected job"][0])
    out = tmp_path / "corpus.jsonl"
    code, data, said = command("--out", out, "--strict")
    assert (code, data, out.exists()) == (3, b"", False)
    assert "1 of 2 letters do not replay" in said
    code, data, said = command("--strict")
    assert (code, data.count(b"\n")) == (3, 1)
    assert "stopped before job" in said
    code, data, said = command("--out", out)
    assert (code, out.read_bytes().count(b"\n")) == (0, 2)
    assert "does not replay: hash_mismatch" in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--since", "2025-06-01T10:00:00"],
            "--since 2025-06-01T10:00:00 has no time zone: write 2025-06-01T10:00:00Z",
        ),
        (["--until", "soon"], "--until 'soon' is no time"),
        (["--since", "2025-06-02", "--until", "2025-06-01"], "ends before it starts"),
        (["--limit", "-1"], "give 0 or more"),
        (["--limit", "many"], "invalid int value"),
        (["--aproved-only"], "unrecognized arguments"),
        (["--out", "."], "is a folder"),
    ],
)
@pytest.mark.usefixtures("store")
def test_wrong_words_are_usage_errors(command, words, problem):
    code, data, said = command(*words)
    assert (code, data) == (2, b"")
    assert problem in said


def test_a_date_is_its_first_moment_in_utc(store, command):
    store.add_job(**new_job(1))
    for words, lines in [
        (["--since", "2025-05-28"], 1),
        (["--since", "2025-05-29"], 0),
        (["--until", "2025-05-28"], 0),
        (["--until", "2025-05-29"], 1),
        (["--since", "2025-05-28T15:00:00+07:00"], 1),
        (["--since", "2025-05-28T15:00:01+07:00"], 0),
    ]:
        assert command("--no-approved-only", *words)[1].count(b"\n") == lines, words


def test_a_missing_store_is_not_an_empty_corpus(tmp_path, capsys):
    assert main(["--store", f"sqlite:///{tmp_path}/stroe.db"]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
