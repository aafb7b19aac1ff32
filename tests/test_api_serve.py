"""`ocr_sprint serve` as a process: its worker, its signals, and what it refuses to do."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from api_samples import JOBS, TRUTH
from review_samples import new_job

from ocr_sprint.documents.letter import Result, result_data
from ocr_sprint.review.store import open_store
from ocr_sprint.review.tokens import create_token, has_tokens
from ocr_sprint.tools.serve import main
from ocr_sprint.tools.synth import main as synth
from ocr_sprint.tools.token import main as token

WAIT = 120  # seconds, for machines that are busy with other things


@contextlib.contextmanager
def serving(url, folder, *words):
    """The command in a process of its own; gives the process and a client."""
    line = [sys.executable, "-m", "ocr_sprint.tools.serve", "--port", "0", *words]
    log = folder / "serve.log"
    with log.open("wb") as said:
        environment = os.environ | {"OCR_SPRINT_STORE": url}
        process = subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=said)
    try:
        address = None
        for _ in range(WAIT * 20):
            found = re.search(r"^serving at (http://\S+)$", log.read_text(), re.MULTILINE)
            if found or process.poll() is not None:
                address = found and found[1]
                break
            time.sleep(0.05)
        assert address, log.read_text()
        with httpx.Client(base_url=address, timeout=WAIT) as client:
            assert client.get("/health").json()["status"] == "ok", "the address answers as soon as it is named"
            yield process, client
    finally:
        if process.poll() is None:
            process.terminate()
        assert process.wait(WAIT) == 0, log.read_text()


def test_a_letter_goes_in_and_comes_out_as_ground_truth(url, tmp_path):
    words = ["--n", "1", "--seed", "3", "--out", str(tmp_path), "--level", "digital", "--layout", "ruled"]
    assert synth(words) == 0
    with serving(url, tmp_path, "--workers", "1") as (process, client):
        workers = [child for child in psutil.Process(process.pid).children() if "worker" in " ".join(child.cmdline())]
        assert len(workers) == 1
        assert url not in " ".join(workers[0].cmdline()), "the database's password is not for everybody's eyes"
        job_id = client.post(JOBS, files={"file": ("surat.pdf", (tmp_path / "001.pdf").read_bytes())}).json()["job_id"]
        for _ in range(WAIT * 10):
            state = client.get(f"{JOBS}/{job_id}").json()
            if state["status"] != "queued":
                break
            time.sleep(0.1)
        assert state["status"] == "done", state
        assert client.get(f"{JOBS}/{job_id}/pages/1").content.startswith(b"\x89PNG")
        approved = client.post(
            f"{JOBS}/{job_id}/approve", headers={"If-Match": f'"{state["version"]}"', "X-User-Id": "penguji"}
        )
        assert approved.status_code == 200
        assert client.get(f"{TRUTH}/export").json()["reviewed_by"] == "penguji"
    assert not workers[0].is_running()
    assert (tmp_path / "ocr_sprint-snapshots").stat().st_mode & 0o077 == 0


def test_a_worker_that_dies_is_started_again(new_url, tmp_path):
    url = new_url("sqlite")
    with serving(url, tmp_path, "--workers", "1") as (process, _):
        first = psutil.Process(process.pid).children()[0]
        first.kill()
        for _ in range(WAIT * 10):
            children = psutil.Process(process.pid).children()
            if children and children[0].pid != first.pid:
                break
            time.sleep(0.1)
        assert children[0].pid != first.pid
    assert "is started again" in (tmp_path / "serve.log").read_text()


def test_a_killed_service_takes_its_worker_along(new_url, tmp_path):
    url = new_url("sqlite")
    line = [sys.executable, "-m", "ocr_sprint.tools.serve", "--port", "0", "--store", url]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.DEVNULL)
    for _ in range(WAIT * 10):
        children = psutil.Process(process.pid).children()
        if children:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)
    assert psutil.wait_procs(children, timeout=WAIT)[1] == []


def test_what_was_acknowledged_before_the_end_is_there(url, tmp_path):
    with open_store(url) as store:
        job_ids = [store.add_job(**new_job(number, result_data(Result()))) for number in range(8)]
    acknowledged = dict.fromkeys(job_ids, 1)
    with serving(url, tmp_path, "--workers", "0", "--requests", "100000/minute") as (process, client):

        def correct(job_id):
            with contextlib.suppress(httpx.TransportError):
                for number in range(10_000):
                    body = {"edits": [{"op": "set", "field_path": "header.perihal", "value": f"Patroli {number}"}]}
                    match = {"If-Match": f'"{acknowledged[job_id]}"'}
                    answer = client.post(f"{JOBS}/{job_id}/corrections", json=body, headers=match)
                    if answer.status_code == 503:  # it takes no more
                        return
                    assert answer.status_code == 200, answer.text
                    acknowledged[job_id] = answer.json()["version"]

        threads = [threading.Thread(target=correct, args=[job_id]) for job_id in job_ids]
        for thread in threads:
            thread.start()
        while sum(acknowledged.values()) < 60:
            time.sleep(0.02)
        process.terminate()
        for thread in threads:
            thread.join(WAIT)
        assert process.wait(WAIT) == 0
    with open_store(url) as store:
        for job_id, version in acknowledged.items():
            # What was on its way when the line was cut may have been written too; nothing else may.
            assert store.job(job_id).version - version in (0, 1)


def test_the_advice_of_a_refusal_opens_the_same_store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCR_SPRINT_STORE", raising=False)
    serve = ["--host", "0.0.0.0", "--port", "0", "--workers", "0", "--store", "sqlite:///X y.db"]
    assert main(serve) == 2
    advice = shlex.split(capsys.readouterr().err.partition("make one first: ocr_sprint token ")[2])
    assert list(tmp_path.iterdir()) == [], "a refused service leaves no store behind"
    assert token(advice) == 0
    with open_store("sqlite:///X y.db", create=False) as store:
        assert has_tokens(store)
    open_store("sqlite:///open.db").close()
    assert main([*serve[:-1], "sqlite:///open.db"]) == 2
    assert "ocr_sprint token create --name admin --role admin --store sqlite:///open.db\n" in capsys.readouterr().err


def test_it_is_not_open_to_others_without_tokens(new_url, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = new_url("sqlite")
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.invalid"):
        assert main(["--host", host, "--port", "0", "--workers", "0", "--store", url]) == 2
        assert "the store has no tokens" in capsys.readouterr().err
    with open_store(url) as store:
        text = create_token(store, "reviewer-a", "viewer")
    with serving(url, tmp_path, "--workers", "0", "--host", "0.0.0.0") as (_, client):
        address = f"http://127.0.0.1:{client.base_url.port}"
        assert httpx.get(f"{address}{JOBS}").status_code == 401
        assert httpx.get(f"{address}{JOBS}", headers={"Authorization": f"Bearer {text}"}).status_code == 200
        assert "server" not in httpx.get(f"{address}/health").headers


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--port", "70000"], "--port 70000 cannot be"),
        (["--host", "256.256.256.256"], "no tokens"),
        (["--workers", "-1"], "neither can be negative"),
        (["--requests", "often"], "'often' is no rate for requests"),
        (["--export-role", "root"], "invalid choice"),
        (["--store", "oracle://x"], "oracle"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCR_SPRINT_STORE", raising=False)
    assert main(words) == 2
    assert complaint in capsys.readouterr().err


def test_a_taken_port_is_said_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port), "--store", f"sqlite:///{tmp_path}/store.db"]) == 2
    assert f"127.0.0.1:{port} cannot be had" in capsys.readouterr().err
    assert not Path("ocr_sprint-snapshots").exists()


@pytest.mark.parametrize("place", ["/proc/ocr_sprint", "/dev/null", "/dev/null/snapshots"])
def test_a_folder_that_cannot_be_had_is_one_line_before_the_address(tmp_path, capsys, place):
    assert (
        main(["--store", f"sqlite:///{tmp_path}/store.db", "--port", "0", "--workers", "0", "--snapshots", place]) == 2
    )
    said = capsys.readouterr().err
    assert said.startswith(f"ocr_sprint serve: --snapshots {place}: cannot be made (")
    assert len(said.splitlines()) == 1
