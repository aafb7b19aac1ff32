"""A run that is killed or interrupted as a process."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from label_samples import FILTER, Serve, corpus
from llm_mock import MockServer

from ocr_sprint.ground_truth.label_journal import entries

COMMAND = [sys.executable, "-m", "ocr_sprint.tools.batch_labeler", "--filter", str(FILTER)]


def start(tmp_path: Path, source: str, server: MockServer, *words: str) -> subprocess.Popen[str]:
    line = [*COMMAND, "--source", source, "--output-dir", str(tmp_path / "labels"), "--llm", "server:tiny"]
    line += ["--base-url", server.v1, "--random-sample", *words]
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)


def test_kills_at_random_points_lose_nothing_and_repeat_at_most_what_was_under_way(
    tmp_path: Path, serve: Serve
) -> None:
    "The campaign of a hundred kills is bench/label.py; here are a few of them."
    server = serve(latency=0.03)
    source = corpus(tmp_path, 500)
    chance, kills = random.Random(7), 5
    words = ("--concurrency", "8", "--target-count", "400")
    journal = tmp_path / "labels/uplifting/journal.jsonl"
    for kill in range(kills):
        process = start(tmp_path, source, server, *words)
        before = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None and (not journal.exists() or journal.stat().st_size <= before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        corpus(tmp_path, 5, start=1000 + 5 * kill)
    process = start(tmp_path, source, server, *words)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    written = (journal.parent / "labeled_articles.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line)["id"] for line in written]
    assert (len(found), len(set(found))) == (400, 400)
    answers = Counter(entry["key"] for _, entry in entries(journal) if entry["kind"] == "answer")
    assert max(answers.values()) == 1
    assert server.mock.seen["answered"] <= 400 + kills * 8


def test_control_c_drains_and_prints_the_command_to_go_on(tmp_path: Path, serve: Serve) -> None:
    server = serve(latency=0.2)
    source = corpus(tmp_path, 300)
    process = start(tmp_path, source, server, "--concurrency", "4")
    while server.mock.seen["answered"] < 8:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    command = said.strip().splitlines()[-1].split()
    assert "go on with:" in said
    assert command[:3] == ["python", "-m", "ocr_sprint.tools.batch_labeler"]
    labelled = len((tmp_path / "labels/uplifting/labeled_articles.jsonl").read_text(encoding="utf-8").splitlines())
    assert labelled == server.mock.seen["answered"], "what was under way was waited for"
    server.mock.settings.latency = 0
    done = subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert server.mock.seen["answered"] == 300
