"""Every document is read once, on both databases, whoever else is at work and whoever dies."""

from __future__ import annotations

import datetime
import multiprocessing
import random
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from queue_samples import drain, read
from sqlalchemy import select

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError
from ocr_sprint.review.chain import verify_chain
from ocr_sprint.review.database import reading, writing
from ocr_sprint.review.queue import (
    ATTEMPTS,
    Task,
    claim,
    finish,
    give_up,
    queue_state,
    release,
    renew,
    submit,
    unread,
)
from ocr_sprint.review.schema import documents, runs, tasks
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.trail import job_entries
from ocr_sprint.review.verify_store import verify_store

SPAWN = multiprocessing.get_context("spawn")


def letter(number: int) -> bytes:
    return b"%%PDF-1.7 letter %d" % number


def fill(store: Store, count: int) -> list[str]:
    return [submit(store, f"{number:03}.pdf", letter(number)).job_id for number in range(count)]


def check_read_once(store: Store, job_ids: list[str]) -> None:
    "Each job has one result, of its own document, and nothing is left in the queue."
    assert queue_state(store) == (0, 0, None)
    for number, job_id in enumerate(job_ids):
        job = store.job(job_id)
        assert (job.status, job.run, job.version) == ("done", 1, 2)
        assert job.result == {"header": {"perihal": letter(number).decode()}}
        with reading(store.engine) as connection:
            entries, head = job_entries(connection, job_id)
        assert len(entries) == 1
        assert verify_chain(entries, head) is None


def test_many_processes_read_each_document_once(url: str) -> None:
    with open_store(url) as store:
        job_ids = fill(store, 60)
        with ProcessPoolExecutor(4, mp_context=SPAWN) as processes:
            kept = list(processes.map(drain, [url] * 4, [f"worker-{number}" for number in range(4)]))
        assert Counter(job for jobs in kept for job in jobs) == Counter(job_ids)
        check_read_once(store, job_ids)


def test_many_threads_read_each_document_once(url: str) -> None:
    with open_store(url) as store:
        job_ids = fill(store, 60)
        with ThreadPoolExecutor(8) as threads:
            kept = list(threads.map(drain, [url] * 8, [f"worker-{number}" for number in range(8)]))
        assert Counter(job for jobs in kept for job in jobs) == Counter(job_ids)
        check_read_once(store, job_ids)


def test_killed_workers_lose_nothing_and_double_nothing(url: str) -> None:
    "Workers are killed in the middle of whatever they do; in the end all is read, once."
    dice, interrupted = random.Random(url.partition(":")[0]), 0
    with open_store(url) as store:
        job_ids = fill(store, 40)
        for number in count():
            names = [f"worker-{number}-{each}" for each in range(2)]
            started = [SPAWN.Process(target=drain, args=(url, name, 1, 0.05), daemon=True) for name in names]
            for process in started:
                process.start()
            if number < 6:
                while not queue_state(store).running:
                    time.sleep(0.02)
                time.sleep(dice.uniform(0, 0.2))
                for process in started:
                    process.kill()
                interrupted += queue_state(store).running
            for process in started:
                process.join()
            state = queue_state(store)
            if not state.waiting + state.running:
                break
        assert interrupted >= 4
        states = Counter(store.job(job_id).status for job_id in job_ids)
        assert states.total() == states["done"] + states["failed"] == 40
        assert states["failed"] <= 2, "a document is given up only when three workers fell over it"
        with reading(store.engine) as connection:
            counted = Counter(connection.execute(select(runs.c.job_seq)).scalars())
        assert set(counted.values()) == {1}
        for job_id in job_ids:
            with reading(store.engine) as connection:
                assert verify_chain(*job_entries(connection, job_id)) is None


def test_one_document_sent_by_many_at_once_is_one_job(url: str) -> None:
    with open_store(url) as store, ThreadPoolExecutor(8) as threads:
        for number in range(8):
            sent = list(threads.map(lambda _, n=number: submit(store, "a.pdf", letter(n)), range(8)))
            assert len({each.job_id for each in sent}) == 1
            assert sum(each.new for each in sent) == 1
        assert queue_state(store).waiting == 8


def test_the_file_is_kept_as_it_came(url: str) -> None:
    with open_store(url) as store:
        content = b"%PDF-1.7\n" + bytes(range(256)) * 1000
        submit(store, "a.pdf", content)
        task = claim(store, "worker-1", 60)
        assert task is not None
        assert task.content == content
        with reading(store.engine) as connection:
            row = connection.execute(documents.select()).one()
        assert (row.document_sha256, row.media_type) == (sha256_hex(content), "application/pdf")


def test_ingesting_a_waiting_document_takes_it_out_of_the_queue(url: str) -> None:
    with open_store(url) as store:
        (job_id,) = fill(store, 1)
        task = claim(store, "worker-1", 60)
        assert task is not None
        store.add_job(**read(task) | {"engine": "by hand"})
        assert not finish(store, task, **read(task))
        assert not renew(store, task, 60)
        assert not release(store, task)
        assert not give_up(store, task, "killed")
        assert (store.job(job_id).engine, store.job(job_id).run) == ("by hand", 1)
        assert queue_state(store) == (0, 0, None)


def test_a_result_that_is_none_is_refused_and_the_claim_stands(url: str) -> None:
    def refuse(_: object) -> None:
        raise DataError("no letter")

    with open_store(url, validate=refuse) as store:
        fill(store, 1)
        task = claim(store, "worker-1", 60)
        assert task is not None
        with pytest.raises(DataError, match="no letter"):
            finish(store, task, **read(task))
        assert finish(store, task, **unread(task, "no letter"))


def test_a_claim_waits_for_nobody(new_url: Any) -> None:
    "On PostgreSQL a worker passes over what another one is just taking."
    with open_store(new_url("postgresql")) as store:
        fill(store, 2)
        with writing(store.engine) as connection:
            connection.execute(tasks.select().where(tasks.c.job_seq == 1).with_for_update())
            second = claim(store, "worker-2", 60)
            assert second is not None
            assert second.filename == "001.pdf"
            assert claim(store, "worker-2", 60) is None
        first = claim(store, "worker-2", 60)
        assert first is not None
        assert first.filename == "000.pdf"


class Model:
    "What the queue should do, in memory: documents, and for each what is known of it."

    def __init__(self) -> None:
        self.now = datetime.datetime(2025, 5, 28, 8, tzinfo=datetime.UTC)
        self.waiting: dict[int, tuple[datetime.datetime, int, str | None, datetime.datetime | None, int]] = {}
        self.state: dict[int, str] = {}
        self.results: Counter[int] = Counter()

    def submit(self, number: int) -> bool:
        new = number not in self.state
        if new or self.state[number] == "failed":
            self.state[number] = "queued"
            self.waiting[number] = (self.now, list(self.state).index(number), None, None, 0)
        return new

    def claim(self, worker: str, lease: int) -> tuple[int, int] | None:
        while True:
            free = [n for n, (_, _, who, end, _) in self.waiting.items() if who is None or (end and end < self.now)]
            if not free:
                return None
            number = min(free, key=lambda n: self.waiting[n][:2])
            came, place, _, _, attempts = self.waiting[number]
            if attempts < ATTEMPTS:
                end = self.now + datetime.timedelta(seconds=lease)
                self.waiting[number] = (came, place, worker, end, attempts + 1)
                return number, attempts + 1
            self.end(number, "failed")

    def stands(self, number: int, worker: str, attempt: int) -> bool:
        return number in self.waiting and self.waiting[number][2::2] == (worker, attempt)

    def end(self, number: int, state: str) -> None:
        del self.waiting[number]
        self.state[number] = state
        self.results[number] += 1


@pytest.mark.parametrize("seed", range(4))
def test_the_queue_does_what_a_list_would_do(url: str, seed: int) -> None:
    dice, model = random.Random(seed), Model()
    claims: list[tuple[Task, int]] = []
    with open_store(url, clock=lambda: model.now) as store:
        for _ in range(150):
            model.now += datetime.timedelta(seconds=dice.choice((0, 1, 5, 40)))
            act = dice.choice(("submit", "submit", "claim", "claim", "claim", "finish", "renew", "release", "give_up"))
            if act == "submit":
                number = dice.randrange(12)
                assert submit(store, f"{number}.pdf", letter(number)).new == model.submit(number)
            elif act == "claim":
                worker, lease = f"worker-{dice.randrange(3)}", dice.choice((10, 60))
                task, expected = claim(store, worker, lease), model.claim(worker, lease)
                assert (task and (task.filename, task.attempt)) == (expected and (f"{expected[0]}.pdf", expected[1]))
                if task and expected:
                    claims.append((task, expected[0]))
            elif claims:
                task, number = dice.choice(claims)
                stands = model.stands(number, task.worker, task.attempt)
                came, place, *_ = model.waiting.get(number, (None, None))
                if act == "finish":
                    good = dice.random() < 0.5
                    job = read(task) if good else unread(task, "torn")
                    assert finish(store, task, **job) == stands
                    if stands:
                        model.end(number, "done" if good else "failed")
                elif act == "renew":
                    assert renew(store, task, 60) == stands
                    if stands:
                        end = model.now + datetime.timedelta(seconds=60)
                        model.waiting[number] = (came, place, task.worker, end, task.attempt)
                elif act == "give_up" and task.attempt >= ATTEMPTS:
                    assert give_up(store, task, "killed") == stands
                    if stands:
                        model.end(number, "failed")
                else:
                    assert (give_up(store, task, "killed") if act == "give_up" else release(store, task)) == stands
                    if stands:
                        model.waiting[number] = (came, place, None, None, task.attempt - (act == "release"))
            jobs = {job.filename: (job.status, job.run) for job in store.jobs()}
            assert jobs == {f"{n}.pdf": (state, model.results[n]) for n, state in model.state.items()}
        assert list(verify_store(store)) == []
