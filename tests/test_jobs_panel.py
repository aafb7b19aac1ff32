"""The job board without a browser: folders are read by worker processes, cancelled, killed and gone on with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pdf_samples import A4, make_pdf, say
from PIL import Image
from pipeline_samples import FAKE_TESSERACT

from ocr_sprint.api.app import create_app
from ocr_sprint.api.service import Settings
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.documents.pipeline import ingest
from ocr_sprint.panels import jobs
from ocr_sprint.panels.board import Board, LaterError, Rows, StoreBoard, advice
from ocr_sprint.panels.intake import Intake
from ocr_sprint.panels.jobs import BoardAnswers, job_board
from ocr_sprint.panels.remote_board import ServiceBoard
from ocr_sprint.review.progress import Progress, Span, Throughput, progress
from ocr_sprint.review.queue import claim, finish, queue_state, submit, unread
from ocr_sprint.review.readiness import Readiness
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.tokens import create_token
from ocr_sprint.review.verify_store import verify_store

SLOW = FAKE_TESSERACT.replace("*) tr", "*) sleep 30; tr")
ONE_BACKEND = pytest.mark.parametrize("backend", ["sqlite"])


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    "Puts a program in the place of tesseract."
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def put(script: str) -> None:
        (programs / "tesseract").write_text(script)
        (programs / "tesseract").chmod(0o755)

    put(FAKE_TESSERACT)
    return put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    "Four letters, one of them twice, a torn one, and a list."
    folder = tmp_path / "letters"
    (folder / "more").mkdir(parents=True)
    for number in range(4):
        content = make_pdf((A4, say() + say(f"Nomor : Sprin/{number}/I/2025", y=300)))
        (folder / f"sprint-{number:03}.pdf").write_bytes(content)
    (folder / "more" / "copy.pdf").write_bytes(content)
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    (folder / "list.xlsx").write_bytes(b"PK\x03\x04")
    return folder


def scans(folder: Path, number: int) -> Path:
    folder.mkdir()
    for grey in range(number):
        Image.new("L", (900, 1200), 240 + grey).save(folder / f"scan-{grey}.png")
    return folder


def wait_until(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(board: Board, intake: Intake, patience: float = 60) -> Callable[..., dict[str, Any]]:
    answers = BoardAnswers(board, intake, patience)
    return lambda kind, **body: dict(answers.answer(kind, body))  # type: ignore[arg-type]  # these have no bytes


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def worker_of(intake: Intake) -> int:
    assert intake.batch is not None and intake.batch.reader is not None
    return intake.batch.reader._process.pid


@pytest.mark.usefixtures("tesseract")
def test_a_folder_is_read_once_and_tells_of_it(store: Store, folder: Path) -> None:
    board = StoreBoard(store)
    intake = Intake(board)
    question = ask(board, intake)
    question("folder", folder=str(folder))
    intake.wait()
    seen = question("state")["folder"]
    assert seen["line"] == "6 PDF: 5 new, 1 with the content of another file."
    assert seen["others"] == [["ends in .xlsx, which is neither a PDF nor an image", 1, "list.xlsx"]]
    assert question("start", engine="tesseract", readers=2)["problems"] == []
    intake.wait()
    state = question("state")
    counts = {"all": 5, "queued": 0, "running": 0, "done": 4, "failed": 1, "needs review": 4, "approved": 0}
    assert state["counts"] == counts
    assert state["folder"]["line"].startswith("6 PDF: 4 in the store already, 1 failed before, to be tried again")
    rows = question("rows", wanted="done")["rows"]
    assert all(row["seconds"] > 0 for row in rows)
    (failed,) = question("rows", wanted="failed")["rows"]
    assert (failed["filename"], failed["retry"]) == ("torn.pdf", False)
    versions = {job.job_id: job.version for job in store.jobs() if job.status == "done"}
    question("start", engine="tesseract", readers=1)
    intake.wait()
    assert {job.job_id: job.version for job in store.jobs() if job.status == "done"} == versions
    assert list(verify_store(store)) == []


@ONE_BACKEND
def test_cancel_ends_every_process_and_leaves_nothing_half_written(
    store: Store, tmp_path: Path, tesseract: Callable[[str], None]
) -> None:
    tesseract(SLOW)
    board = StoreBoard(store)
    intake = Intake(board)
    intake.choose(str(scans(tmp_path / "scans", 5)))
    intake.start("tesseract", processes=2)
    wait_until(lambda: queue_state(store).running == 2)
    worker = worker_of(intake)
    processes = [worker, *children(worker)]
    began = time.monotonic()
    intake.cancel()
    assert intake.phase == "stopping"
    intake.wait()
    assert time.monotonic() - began < 20  # a busy machine; some two seconds when it is not
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in processes))
    assert queue_state(store)[:2] == (5, 0)
    assert {(job.status, job.run) for job in store.jobs()} == {("queued", 0)}
    assert "5 letters in the queue, and nobody reads" in intake.headline(board.progress())
    tesseract(FAKE_TESSERACT)
    intake.start("tesseract", processes=2)
    intake.wait()
    assert [job.status for job in store.jobs()] == ["done"] * 5
    assert board.progress().needs_review == 5


@ONE_BACKEND
def test_a_killed_worker_is_told_and_a_further_start_goes_on(
    store: Store, tmp_path: Path, tesseract: Callable[[str], None]
) -> None:
    tesseract(SLOW)
    board = StoreBoard(store)
    intake = Intake(board)
    intake.choose(str(scans(tmp_path / "scans", 2)))
    intake.start("tesseract", processes=1)
    wait_until(lambda: queue_state(store).running == 1)
    os.kill(worker_of(intake), signal.SIGKILL)
    intake.wait()
    (problem,) = intake.problems
    assert problem.startswith("the worker ended by itself (killed by SIGKILL)")
    assert problem.endswith("letters stay in the queue")
    assert progress(store).left == 2
    assert {job.status for job in store.jobs()} == {"queued"}


BOARD = """
import sys, time
from ocr_sprint.panels.jobs import job_board
panel = job_board(sys.argv[1], folder=sys.argv[2])
panel.intake.start("tesseract", 1)
print(panel.intake.batch.reader._process.pid, flush=True)
time.sleep(600)
"""


@ONE_BACKEND
def test_a_killed_kernel_loses_nothing(
    store: Store, url: str, tmp_path: Path, tesseract: Callable[[str], None]
) -> None:
    tesseract(FAKE_TESSERACT.replace("*) tr", "*) sleep 1; tr"))
    folder = scans(tmp_path / "scans", 6)
    line = [sys.executable, "-c", BOARD, url, str(folder)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout is not None
        worker = int(kernel.stdout.readline())
        wait_until(lambda: progress(store).done)
        kernel.kill()
    wait_until(lambda: not Path(f"/proc/{worker}/exe").exists())
    assert queue_state(store).running == 0
    assert 0 < progress(store).left < 6
    intake = Intake(StoreBoard(store))
    intake.choose(str(folder))
    intake.start("tesseract", processes=1)
    intake.wait()
    assert [(job.status, job.run) for job in store.jobs()] == [("done", 1)] * 6


@ONE_BACKEND
def test_an_engine_that_is_not_there_is_said(store: Store, folder: Path, tesseract: Callable[[str], None]) -> None:
    tesseract("#!/bin/sh\nexit 1\n")
    intake = Intake(StoreBoard(store))
    intake.choose(str(folder))
    intake.start("tesseract", processes=1)
    intake.wait()
    assert "esseract" in intake.problems[-1]
    assert {job.status for job in store.jobs()} <= {"queued"}


@pytest.mark.usefixtures("tesseract")
def test_others_at_work_are_seen(store: Store, folder: Path) -> None:
    """A command in a terminal, and another board's worker."""
    board = StoreBoard(store)
    intake = Intake(board)
    question = ask(board, intake)
    assert "There are no letters yet" in question("state")["headline"]
    before = question("state")["newest"]
    list(ingest([folder], store, name="tesseract", progress=False))
    wait_until(lambda: question("state")["newest"] != before)
    assert question("state")["counts"]["all"] == 5
    submit(store, "late.pdf", b"%PDF-1.7 late")
    task = claim(store, "another-board", 60)
    assert task is not None
    wait_until(lambda: question("state")["headline"].startswith("Others read: 1 worker, 1 in hand"))
    assert [row["filename"] for row in question("rows", wanted="running")["rows"]] == ["late.pdf"]
    finish(store, task, **unread(task, "late.pdf: the pipeline failed (KeyError: 'x')"))
    question("retry")
    assert question("rows", wanted="queued")["rows"][0]["filename"] == "late.pdf"


@ONE_BACKEND
def test_over_the_service(store: Store, folder: Path, tmp_path: Path) -> None:
    token = create_token(store, "scanner", "reviewer")
    server = uvicorn.Server(uvicorn.Config(create_app(store, Settings(tmp_path / "s")), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        board = ServiceBoard(address, token)
        panel = job_board(board, folder=folder)
        question = ask(board, panel.intake)
        panel.intake.wait()
        assert question("state")["reads"] is False
        question("start", engine="paddle", readers=1)
        panel.intake.wait()
        wait_until(lambda: question("state")["counts"]["queued"] == 5)
        assert "the service's workers will read them" in question("state")["headline"]
        assert question("state")["folder"]["line"] == "6 PDF: 5 in the queue, 1 with the content of another file."
        assert token not in str(panel.get_state()) + repr(vars(board))
        panel.close()
    finally:
        server.should_exit = True
        thread.join()
    wait_until(lambda: any("does not answer" in problem for problem in question("state")["problems"]))
    assert "saved" not in str(question("state")["problems"]), "it was only asked"


class Slow(StoreBoard):
    "A board whose service answers when it is let, and fails when it is told to."

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.reads = None  # type: ignore[assignment]  # others read, as with a service
        self.let, self.asked, self.answered, self.fails = threading.Event(), 0, 0, False

    def hold(self) -> None:
        self.asked += 1
        self.let.wait()
        if self.fails:
            raise DataError("letters.example does not answer")
        self.answered += 1

    def progress(self) -> Progress:
        self.hold()
        return super().progress()

    def rows(self, wanted: str, after: str | None = None) -> Rows:
        self.hold()
        return super().rows(wanted, after)

    def throughput(self, span: Span) -> Throughput:
        self.hold()
        return super().throughput(span)

    def readiness(self) -> Readiness:
        self.hold()
        return super().readiness()


QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("state", {}),
    ("rows", {"wanted": "all"}),
    ("throughput", {"span": "hour"}),
    ("readiness", {"renew": True}),
    ("start", {"engine": "rapidocr", "readers": 1}),
]


@ONE_BACKEND
def test_no_question_waits_for_a_service_and_what_was_known_is_shown_with_its_age(store: Store) -> None:
    submit(store, "letter.pdf", b"%PDF-1.7 letter")
    board = Slow(store)
    seconds = [0.0]
    answers = BoardAnswers(board, Intake(board), patience=0, clock=lambda: seconds[0])

    def question(kind: str, body: dict[str, Any]) -> dict[str, Any]:
        return dict(answers.answer(kind, body))  # type: ignore[arg-type]  # these have no bytes

    for _ in range(3):  # each returns although nothing is answered, and no second one is sent after the first
        told = [question(kind, body) for kind, body in QUESTIONS]
        seconds[0] += 20
    assert (board.asked, board.answered) == (4, 0)
    assert told[0]["headline"] == "The service has not answered for 40 seconds. Nothing is known yet."
    assert [each["busy"] for each in told[1:4]] == [True] * 3
    assert told[1]["rows"] is told[2]["figure"] is None
    assert told[4]["problems"] == ["nothing waits: name a folder with letters in it, then start"]
    board.let.set()
    wait_until(lambda: question("state", {})["counts"])
    wait_until(lambda: question("rows", {"wanted": "all", "renew": False})["rows"])
    wait_until(lambda: not question("readiness", {})["busy"])
    wait_until(lambda: answers._progress.busy is False)
    board.let.clear()
    question("state", {})
    seconds[0] += 120
    state, rows = question("state", {}), question("rows", {"wanted": "all"})
    assert (state["counts"]["all"], rows["rows"][0]["filename"], rows["busy"]) == (1, "letter.pdf", True)
    assert state["note"] == "The service has not answered for 2 minutes. What is shown is 2 minutes old."
    assert state["headline"].startswith(state["note"])
    board.fails = True
    board.let.set()
    wait_until(lambda: "letters.example does not answer" in question("state", {})["problems"])
    assert question("state", {})["counts"]["all"] == 1
    board.fails = False
    wait_until(lambda: not question("state", {})["note"])
    assert "letters.example does not answer" not in question("state", {})["problems"]


def test_a_service_that_takes_a_call_and_says_nothing_holds_no_kernel() -> None:
    """By its door only: whoever waited for it here would wait a minute, and be refused."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        board = ServiceBoard(f"http://127.0.0.1:{door.getsockname()[1]}")
        question = ask(board, Intake(board), patience=0.01)
        told = [question(kind, **body) for kind, body in QUESTIONS]
    assert [each["busy"] for each in told[1:4]] == [True] * 3
    assert [each["problem"] for each in told[1:4]] == [None] * 3
    assert told[0]["counts"] is None


@ONE_BACKEND
def test_a_cell_that_is_run_again_can_cancel_what_the_first_began(
    store: Store, tmp_path: Path, tesseract: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tesseract(SLOW)
    monkeypatch.setattr(jobs, "_INTAKES", {})
    first = job_board(store, folder=scans(tmp_path / "scans", 1))
    first.intake.start("tesseract", 1)
    second = job_board(store, folder=tmp_path / "elsewhere")
    assert second.intake is first.intake
    wait_until(lambda: queue_state(store).running)
    with pytest.raises(UsageError, match="under way"):
        second.intake.start("tesseract", 1)
    second.intake.cancel()
    second.intake.wait()
    assert queue_state(store)[:2] == (1, 0)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("rows", {}), ("rows", {"wanted": "x"}), ("rows", {"wanted": "all", "after": "x"}), ("throughput", {"span": "x"}),
     ("start", {"engine": "paddle"}), ("start", {"engine": "paddle", "readers": "many"}), ("folder", {}), ("", {})],
)  # fmt: skip
@ONE_BACKEND
def test_bad_questions_are_refused_in_a_line(store: Store, kind: str, body: dict[str, Any]) -> None:
    board = StoreBoard(store)
    with pytest.raises(UsageError) as refused:
        BoardAnswers(board, Intake(board), patience=60).answer(kind, body)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        ("a.pdf: the PDF cannot be opened: it is encrypted; remove the password", False),
        ("a.pdf: the PDF cannot be opened: it is damaged, cut short or without pages", False),
        ("a.tif: 900 pages, more than 200; split the file", False),
        ("a.png: the image cannot be decoded (its header is damaged); is it complete?", False),
        ("a.png: page 1 has 9000 x 9000 pixels, more than 50 million; scan it at 300 dpi", False),
        ("a.png: given up after 3 attempts (killed by SIGKILL); send it again to try once more", True),
        ("a.png: the pipeline failed (TimeoutError: took longer than 600 s)", True),
        ("a.png: the pipeline failed (KeyError: 'x')", True),
    ],
)
def test_what_to_do_about_a_failure(error: str, retry: bool) -> None:
    assert advice(error).retry is retry
    assert advice(error).text


class Busy(StoreBoard):
    "A board whose service has enough after the first letter, for an hour."

    def retry(self, job_id: str) -> None:
        if "queued" in {job.status for job in self.store.jobs()}:
            raise LaterError("enough for now", 3600)
        super().retry(job_id)


@ONE_BACKEND
def test_a_service_that_has_enough_does_not_hold_up_the_board_and_retrying_can_be_cancelled(store: Store) -> None:
    for number in range(3):
        submit(store, f"letter-{number}.pdf", b"%%PDF-1.7 %d" % number)
        task = claim(store, "worker", 60)
        assert task is not None
        finish(store, task, **unread(task, "letter.pdf: the pipeline failed (KeyError: 'x')"))
    board = Busy(store)
    question = ask(board, Intake(board))
    state = question("retry")
    wait_until(lambda: question("state")["counts"]["queued"] == 1)
    state = question("state")
    assert state["retrying"] is True
    assert state["headline"].startswith("Putting failed letters back into the queue: 1 of 3.")
    state = question("cancel")
    wait_until(lambda: question("state")["retrying"] is False)
    state = question("state")
    assert (state["counts"]["queued"], state["counts"]["failed"], state["problems"]) == (1, 2, [])


@ONE_BACKEND
def test_a_service_that_has_enough_lets_sending_be_cancelled(store: Store, folder: Path) -> None:
    class Full(StoreBoard):
        reads = None

        def send(self, filename: str, content: bytes) -> None:
            raise LaterError(f"{filename}: no {len(content)} bytes more for now", 3600)

    intake = Intake(Full(store))
    intake.choose(str(folder))
    intake.start("rapidocr", 1)
    wait_until(lambda: intake.to_send)
    intake.cancel()
    intake.wait()
    assert (intake.phase, intake.problems, list(store.jobs())) == ("idle", [], [])
