"""Workers as processes of their own: they read, they are asked to end, they are killed, and letters kill them."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pdf_samples import A4, make_pdf, say
from PIL import Image
from queue_samples import read

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.outcomes import Failure
from ocr_sprint.documents.pipeline import Processed
from ocr_sprint.documents.reading import Readers
from ocr_sprint.review.queue import QueueState, claim, queue_state, submit
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.tools.worker import _settle, main

# Widths of scans that tell the engine below what to do with its reader.
NAP, KILL, SLEEP = 700, 666, 777
ENGINE = f"""#!/bin/sh
case "$1" in
--version) echo "tesseract 9.9.9" ;;
--list-langs) printf 'List of available languages (1):\\nind\\n' ;;
*)  set -- "$2" $(od -An -tu1 -j16 -N4 "$1")
    case "$(($4 * 256 + $5))" in
    {NAP}) sleep 0.4 ;;
    {KILL}) kill -9 $PPID ;;
    {SLEEP}) exec sleep 60 ;;
    esac
    tr ' ' '\\t' > "$1.tsv" <<END
level page_num block_num par_num line_num word_num left top width height conf text
5 1 1 1 1 1 10 10 90 20 96.5 SURAT
END
    ;;
esac
"""


def letter(number: int) -> bytes:
    return make_pdf((A4, say() + say(f"Nomor : Sprin/{number}/I/2025", y=300)))


def scan(width: int, grey: int = 255) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, 900), grey).save(file, "PNG")
    return file.getvalue()


# What a worker does with its processes has nothing to do with the database; test_queue tries the queue on both.
ONE_BACKEND = pytest.mark.parametrize("backend", ["sqlite"])
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, url: str) -> Iterator[Start]:
    "Starts a worker on the store; whatever is still running in the end is killed."
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "tesseract").write_text(ENGINE)
    (programs / "tesseract").chmod(0o755)
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, before: tuple[str, ...] = (), path: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ocr_sprint.tools.worker", "--store", url, "--engine", "tesseract", *words]
        surroundings = os.environ | {"PATH": path or f"{programs}:{os.environ['PATH']}"}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([*before, *command], env=surroundings, **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


def ended(process: subprocess.Popen[str], code: int = 0) -> list[list[str]]:
    "The lines that a worker wrote, once it has ended."
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return [line.split("\t") for line in out.splitlines()]


def wait_until(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_workers_drain_a_queue(start: Start, store: Store) -> None:
    jobs = {submit(store, f"{number:02}.pdf", letter(number)).job_id: number for number in range(12)}
    workers = [start("--drain") for _ in range(2)]
    lines = [line for worker in workers for line in ended(worker)]
    assert sorted(lines) == sorted(["done", job_id, f"{number:02}.pdf"] for job_id, number in jobs.items())
    for job_id, number in jobs.items():
        job = store.job(job_id)
        assert isinstance(job.result, dict)
        assert job.result["header"]["nomor_sprint"] == f"Sprin/{number}/I/2025"
        assert (job.run, job.pages, job.engine.partition("-")[0]) == (1, 1, "pypdfium2")


@ONE_BACKEND
def test_asked_to_end_it_finishes_what_it_reads(start: Start, store: Store) -> None:
    for grey in range(6):
        submit(store, f"{grey}.png", scan(NAP, 250 + grey))
    worker = start()
    wait_until(lambda: queue_state(store).running)
    worker.terminate()
    lines = ended(worker)
    assert lines[-1][0] == "done"
    assert queue_state(store)[:2] == (6 - len(lines), 0)
    assert len(ended(start("--drain"))) == 6 - len(lines)


@ONE_BACKEND
def test_asked_twice_it_gives_letters_back(start: Start, store: Store) -> None:
    submit(store, "sleep.png", scan(SLEEP))
    worker = start()
    wait_until(lambda: queue_state(store).running)
    worker.send_signal(signal.SIGINT)
    time.sleep(0.3)
    worker.send_signal(signal.SIGINT)
    assert ended(worker, code=130) == []
    assert queue_state(store)[:2] == (1, 0)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_worker_loses_nothing(start: Start, store: Store) -> None:
    for grey in range(4):
        submit(store, f"{grey}.png", scan(NAP, 250 + grey))
    first = start("--lease", "1", "--processes", "2")
    wait_until(lambda: queue_state(store).running == 2 and len(children(first.pid)) >= 2)
    readers = children(first.pid)
    first.kill()
    first.wait()
    second = start("--lease", "1")
    wait_until(lambda: queue_state(store) == QueueState(0, 0, None))
    second.terminate()
    assert ended(second)
    jobs = list(store.jobs())
    assert [(job.status, job.run) for job in jobs] == [("done", 1)] * 4
    wait_until(lambda: not any(Path(f"/proc/{reader}/exe").exists() for reader in readers))


@ONE_BACKEND
def test_a_letter_that_kills_its_readers_fails_and_the_others_do_not(start: Start, store: Store) -> None:
    killer = submit(store, "killer.png", scan(KILL)).job_id
    other = submit(store, "other.png", scan(800)).job_id
    lines = ended(start("--drain"))
    assert [line[:3] for line in lines] == [
        ["again", killer, "killer.png"],
        ["again", killer, "killer.png"],
        ["failed", killer, "killer.png"],
        ["done", other, "other.png"],
    ]
    reason = "killer.png: given up after 3 attempts (killed by SIGKILL); send it again to try once more"
    assert store.job(killer).error == reason


@ONE_BACKEND
def test_a_letter_that_takes_too_long_fails_at_once(start: Start, store: Store) -> None:
    slow = submit(store, "slow.png", scan(SLEEP)).job_id
    ((state, job_id, _, error),) = ended(start("--drain", "--seconds", "1"))
    assert (state, job_id) == ("failed", slow)
    assert error == store.job(slow).error == "slow.png: the pipeline failed (TimeoutError: took longer than 2 s)"


@ONE_BACKEND
def test_an_engine_that_is_not_there_harms_no_letter(start: Start, store: Store) -> None:
    submit(store, "0.pdf", letter(0))
    worker = start("--drain", path="/nowhere")
    assert ended(worker, code=2) == []
    assert queue_state(store)[:2] == (1, 0)
    assert len(ended(start("--once"))) == 1


PARENT = """
import os, subprocess, sys, time
subprocess.Popen([*sys.argv[1:], "--parent", str(os.getpid())])
time.sleep(600)
"""


@ONE_BACKEND
def test_it_ends_with_the_process_that_started_it(start: Start, store: Store) -> None:
    parent = start(before=(sys.executable, "-c", PARENT))
    wait_until(lambda: children(parent.pid))
    (worker,) = children(parent.pid)
    submit(store, "0.pdf", letter(0))
    wait_until(lambda: queue_state(store) == QueueState(0, 0, None))
    parent.kill()
    wait_until(lambda: not Path(f"/proc/{worker}/exe").exists())


@ONE_BACKEND
def test_what_cannot_be_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", url, "--drain"]) == 2
    assert "there is no store" in capsys.readouterr().err
    for words in (["--processes", "0"], ["--lease", "0"], ["--seconds", "0"]):
        with open_store(url):
            assert main(["--store", url, *words]) == 2
        assert "give at least 1" in capsys.readouterr().err


def test_what_the_store_would_refuse_is_a_failed_job(url: str) -> None:
    def refuse(_: object) -> None:
        raise DataError("no letter")

    with open_store(url, validate=refuse) as opened:
        for number, (change, reason) in enumerate((({}, "no letter"), ({"ocr_text": "\0"}, "U\\+0000"))):
            submit(opened, f"{number}.pdf", letter(number))
            task = claim(opened, "worker-1", 60)
            assert task is not None
            state, error = _settle(opened, task, replace(Processed(**read(task)), **change))
            assert state == "failed"
            assert re.fullmatch(rf"{number}\.pdf: what was read cannot be kept \(.*{reason}.*\)", error or "")
            assert opened.job(task.job_id).error == error


# Readers by themselves


def answers(readers: Readers) -> dict[int, Processed | Failure]:
    found: dict[int, Processed | Failure] = {}
    while readers.busy:
        found |= dict(readers.wait())
    return found


def test_memory_is_bounded_and_the_next_letter_is_read() -> None:
    file = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(file, "PNG")
    with Readers("rapidocr", megabytes=250, seconds=30) as readers:
        readers.start(1, file.getvalue(), "large.png")
        (large,) = answers(readers).values()
        readers.start(2, letter(2), "letter.pdf")
        (small,) = answers(readers).values()
    assert isinstance(large, Processed)
    assert large.error == "large.png: the image needs more memory than it may take; scan it at a coarser grain"
    assert isinstance(small, Processed)
    assert small.error is None


def test_the_senders_name_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Readers("rapidocr") as readers:
        readers.start(1, b"no letter", "../../etc/passwd")
        (done,) = answers(readers).values()
        assert isinstance(done, Processed)
        assert done.filename == "../../etc/passwd"
        assert done.error == "../../etc/passwd: neither a PDF nor an image (PNG, JPEG, TIFF, BMP, WebP)"
        assert [path.name for folder in tmp_path.iterdir() for path in folder.iterdir()] == []
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with Readers("tesseract") as readers:
        readers.start(1, letter(1), "letter.pdf")
        with pytest.raises(UsageError, match="the engine tesseract is not installed"):
            answers(readers)
