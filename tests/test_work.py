"""Work: the same outcomes wherever it is done, and nothing lost but the item that was to blame."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import work_samples as samples
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_sprint.core import outcomes
from ocr_sprint.core.cluster import Cluster, local_cluster
from ocr_sprint.core.errors import UsageError
from ocr_sprint.core.outcomes import Failure, Outcome, in_order
from ocr_sprint.core.work import work


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_cluster(processes=2) as client:
        yield client


@pytest.fixture(params=["here", "processes", "dask"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments that say where the work is done."""
    if request.param == "dask":
        return {"client": request.getfixturevalue("client")}
    return {"processes": 2 if request.param == "processes" else 1}


def children() -> list[psutil.Process]:
    """The workers that are alive; multiprocessing's own helper stays until this process ends."""
    return [p for p in psutil.Process().children(recursive=True) if "resource_tracker" not in " ".join(p.cmdline())]


def wait_until_idle(processes: list[psutil.Process]) -> None:
    """Wait until the processes sleep and have used no time between two looks: each waits for its next item."""
    before: list[Any] = []
    while True:
        looks = [(process.status(), process.cpu_times()[:2]) for process in processes]
        if looks == before and {status for status, _ in looks} == {psutil.STATUS_SLEEPING}:
            return
        before = looks
        time.sleep(0.2)


# Order and failures


class Shuffled(outcomes.Here[int, int]):
    """An engine whose items end in any order."""

    def __init__(self, choices: list[int], capacity: int) -> None:
        super().__init__(samples.square)
        self.choices = iter(choices)
        self.capacity = capacity
        self.most = 0

    def wait(self) -> list[tuple[int, Outcome[int, int]]]:
        self.most = max(self.most, len(self._tasks))
        self._tasks.append(self._tasks.pop(next(self.choices, 0) % len(self._tasks)))
        return super().wait()


@settings(deadline=None)
@given(st.lists(st.integers()), st.lists(st.integers(0)), st.integers(1, 9))
def test_order_is_kept_whatever_ends_first(items: list[int], choices: list[int], capacity: int) -> None:
    engine = Shuffled(choices, capacity)
    assert list(in_order(engine, items)) == [Outcome(item, item * item) for item in items]
    assert engine.most <= capacity


def test_order_is_kept_when_later_items_end_first(place: dict[str, Any]) -> None:
    naps = [0.3, 0.0, 0.2, 0.0, 0.1, 0.0]
    assert [outcome.value for outcome in work(samples.nap, naps, **place)] == naps


def test_an_item_that_fails_is_an_outcome_and_the_others_go_on(place: dict[str, Any]) -> None:
    found = list(work(samples.odd_ones_fail, range(6), **place))
    assert found == [
        Outcome(n, None, Failure("ValueError", f"{n} is odd")) if n % 2 else Outcome(n, b"x" * n) for n in range(6)
    ]
    assert found[1].error is not None
    assert "in odd_ones_fail" in found[1].error.trace


@settings(max_examples=5, deadline=None)
@given(numbers=st.lists(st.integers(0, 1000), max_size=30))
def test_two_processes_and_dask_give_the_bytes_of_one_process(client: Client, numbers: list[int]) -> None:
    here = list(work(samples.odd_ones_fail, numbers))
    assert list(work(samples.odd_ones_fail, numbers, processes=2)) == here
    assert list(work(samples.odd_ones_fail, numbers, client=client)) == here


def test_large_items_and_values_travel(place: dict[str, Any]) -> None:
    large = [os.urandom(5_000_000) for _ in range(3)]
    assert [outcome.value for outcome in work(bytes, large, **place)] == large


@pytest.mark.parametrize("place", ["processes", "dask"], indirect=True)
def test_what_cannot_travel_is_that_items_failure(place: dict[str, Any]) -> None:
    [there] = work(samples.lock, [1], **place)
    assert there.error is not None
    assert "cannot pickle" in there.error.message
    good, bad, also_good = work(str, [1, threading.Lock(), 2], **place)
    assert (good.value, also_good.value) == ("1", "2")
    assert bad.error is not None
    assert "cannot pickle" in bad.error.message


# Death


@pytest.mark.parametrize("place", ["processes", "dask"], indirect=True)
def test_a_killed_worker_costs_only_its_own_item(place: dict[str, Any], tmp_path: Path) -> None:
    found = list(work(samples.kill_itself_at_7, [(tmp_path, n) for n in range(20)], **place))
    assert [outcome.value for outcome in found] == [None if n == 7 else n for n in range(20)]
    assert [outcome.error is not None and outcome.error.kind for outcome in found].count("WorkerDied") == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(n): "called\n" for n in range(20)}


def test_how_a_worker_died_is_said(tmp_path: Path) -> None:
    [ended] = work(os._exit, [3], processes=2)
    assert ended == Outcome(3, None, Failure("WorkerDied", "exited with code 3"))
    [killed] = work(samples.kill_itself_at_7, [(tmp_path, 7)], processes=2)
    assert killed.error == Failure("WorkerDied", "killed by SIGKILL")
    assert list(work(samples.square, [], processes=2)) == []


def test_workers_killed_between_two_items_cost_nothing() -> None:
    others = {process.pid for process in children()}
    found = work(samples.square, count(), processes=2)
    assert [next(found).value for _ in range(4)] == [0, 1, 4, 9]
    workers = [process for process in children() if process.pid not in others]
    wait_until_idle(workers)
    for process in workers:
        process.kill()
    while {process.status() for process in workers} != {psutil.STATUS_ZOMBIE}:
        time.sleep(0.01)
    assert [next(found).value for _ in range(6)] == [16, 25, 36, 49, 64, 81]
    found.close()


def test_an_item_that_takes_too_long_fails_alone() -> None:
    began = time.monotonic()
    found = list(work(samples.nap, [0.0, 60.0, 0.1, 60.0], processes=2, seconds_per_item=1))
    assert [str(outcome.error) for outcome in found if outcome.error] == ["TimeoutError: took longer than 1 s"] * 2
    assert [outcome.value for outcome in found] == [0.0, None, 0.1, None]
    assert time.monotonic() - began < 20


# Starting


def test_one_process_is_this_one() -> None:
    assert [outcome.value for outcome in work(lambda _: os.getpid(), [1])] == [os.getpid()]


def test_processes_are_separate_spawned_and_single_threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    samples.touched.append("in this process only")
    names = ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert [outcome.value for outcome in work(samples.environment, names, processes=2)] == ["1"] * 4
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OMP_THREAD_LIMIT" not in os.environ
    pids = {outcome.value for outcome in work(samples.pid, range(6), processes=2)}
    assert len(pids) == 2
    assert os.getpid() not in pids
    [(_, times)] = [outcome.value for outcome in work(samples.times_touched, [1], processes=2) if outcome.value]
    assert times == 0
    samples.touched.clear()


def test_dask_workers_have_one_thread_and_keep_their_memory(client: Client) -> None:
    names = ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"]
    found = [outcome.value for outcome in work(samples.environment, names, client=client)]
    assert found == ["1", "1", str(2**30), str(2**30)]


@pytest.mark.parametrize("place", ["processes", "dask"], indirect=True)
def test_each_process_is_prepared_once(place: dict[str, Any]) -> None:
    found = [outcome.value for outcome in work(samples.times_touched, range(12), initializer=samples.touch, **place)]
    assert {times for found_in in found if found_in for times in found_in[1:]} == {1}


def test_an_initializer_that_fails_ends_the_work(place: dict[str, Any]) -> None:
    expected = RuntimeError if place.get("processes") == 1 else UsageError
    with pytest.raises(expected) as caught:
        list(work(samples.square, range(3), initializer=samples.refuse, **place))
    assert "no model in" in str(caught.value)
    if expected is UsageError:
        assert str(caught.value) == "a worker could not start: RuntimeError: no model in this folder"


def defined_in(module: str) -> Callable[..., int]:
    def function(item: int = 0) -> int:
        return item

    function.__module__, function.__qualname__ = module, "function"
    return function


@pytest.mark.parametrize("place", ["processes", "dask"], indirect=True)
def test_functions_that_others_cannot_import_are_refused_at_once(place: dict[str, Any]) -> None:
    unnamed: Callable[..., int] = lambda item=0: item  # noqa: E731
    for function in (defined_in("__main__"), unnamed):
        with pytest.raises(UsageError, match="move it to the top level of a module"):
            work(function, [1], **place)
        with pytest.raises(UsageError, match="move it to the top level of a module"):
            work(samples.square, [1], initializer=function, **place)


def test_contradictions_are_refused(client: Client) -> None:
    with pytest.raises(UsageError, match="processes is 0"):
        work(samples.square, [1], processes=0)
    with pytest.raises(UsageError, match="leave out processes"):
        work(samples.square, [1], client=client, processes=2)
    with pytest.raises(UsageError, match="seconds_per_item"):
        work(samples.square, [1], client=client, seconds_per_item=1)


def script(folder: Path, *lines: str) -> list[str]:
    path = folder / "script.py"
    path.write_text("\n".join(lines))
    return [sys.executable, str(path)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


def test_a_script_without_a_guard_is_told_instead_of_starting_for_ever(tmp_path: Path) -> None:
    line = script(
        tmp_path,
        "import work_samples",
        "from ocr_sprint.core.work import work",
        "print(list(work(work_samples.square, [1, 2, 3], processes=2)))",
    )
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "UsageError: workers end before they begin (exited with code 1)" in done.stderr


# Laziness and stopping


def test_items_are_asked_for_one_by_one(place: dict[str, Any]) -> None:
    asked = 0

    def endless() -> Iterator[int]:
        nonlocal asked
        while True:
            asked += 1
            yield asked

    found = work(samples.square, endless(), **place)
    assert next(found).value == 1
    assert asked <= 1 + outcomes.AHEAD + 2
    found.close()


def test_a_slow_first_item_does_not_let_the_rest_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "AHEAD", 10)
    asked: list[float] = []

    def naps() -> Iterator[float]:
        for number in range(1_000_000):
            asked.append(number)
            yield 0.0 if number else 1.0

    found = work(samples.nap, naps(), processes=2)
    assert next(found).value == 1.0
    assert len(asked) <= 12
    found.close()


def test_dask_holds_no_more_than_one_item_per_thread(client: Client, tmp_path: Path) -> None:
    engine: Cluster[Path, tuple[float, float]] = Cluster(samples.interval, client=client)
    most = 0
    for outcome in in_order(engine, [tmp_path] * 20):
        most = max(most, len(engine._futures))
        assert outcome.value
    assert most <= 2
    assert (tmp_path / "calls").read_text() == "x" * 20  # equal items are not taken for the same work


def test_leaving_early_leaves_no_process() -> None:
    before = {process.pid for process in children()}
    found = work(samples.nap, [0.0, 60.0, 60.0], processes=2)
    assert next(found).value == 0.0
    assert {process.pid for process in children()} > before
    began = time.monotonic()
    found.close()
    assert time.monotonic() - began < 5
    assert {process.pid for process in children()} == before


def test_an_error_among_the_items_leaves_no_process() -> None:
    def items() -> Iterator[float]:
        yield 60.0
        raise OSError("the folder has gone")

    before = {process.pid for process in children()}
    with pytest.raises(OSError, match="the folder has gone"):
        list(work(samples.nap, items(), processes=2))
    assert {process.pid for process in children()} == before


SLEEPERS = (
    "import pathlib, sys, work_samples",
    "from ocr_sprint.core.work import work",
    "if __name__ == '__main__':",
    "    list(work(work_samples.say_pid_and_sleep, [pathlib.Path(sys.argv[1])] * 5, processes=2))",
)


def started(tmp_path: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A process with two busy workers."""
    folder = tmp_path / "pids"
    folder.mkdir()
    process = subprocess.Popen(
        [*script(tmp_path, *SLEEPERS), str(folder)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(folder.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    return process, [psutil.Process(int(path.name)) for path in folder.iterdir()]


@pytest.mark.parametrize("whole_group", [True, False], ids=["as in a terminal", "to the parent only"])
def test_ctrl_c_stops_at_once_and_leaves_no_orphan(tmp_path: Path, whole_group: bool) -> None:
    process, workers = started(tmp_path)
    began = time.monotonic()
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert time.monotonic() - began < 3
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert [worker for worker in workers if worker.is_running()] == []


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    process, workers = started(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert (len(gone), alive) == (2, [])


def test_a_cluster_that_is_gone_is_said() -> None:
    with local_cluster(processes=1) as client:
        engine: Cluster[float, float] = Cluster(samples.nap, client=client)
        engine.start(0, 60.0)
        client.cancel(list(engine._futures), force=True)  # type: ignore[no-untyped-call]
        with pytest.raises(UsageError, match="the Dask cluster has dropped the work"):
            engine.wait()
        engine.start(1, 60.0)
    for call in (engine.wait, lambda: engine.start(2, 1.0)):
        with pytest.raises(UsageError, match="the Dask cluster has dropped the work"):
            call()
    engine.close()


def test_a_local_cluster_has_the_workers_that_were_asked_for() -> None:
    with local_cluster(processes=1) as client:
        assert list(client.nthreads().values()) == [1]  # type: ignore[no-untyped-call]


# Progress


def test_without_a_terminal_there_is_no_bar_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (None, False):
        list(work(samples.odd_ones_fail, range(4), progress=progress, describe="reading"))
        assert capsys.readouterr() == ("", "")
    list(work(samples.odd_ones_fail, range(4), progress=True, describe="reading"))
    out, err = capsys.readouterr()
    assert out == ""
    last = err.rstrip().rsplit("\r", 1)[-1]
    assert last.startswith("reading: 100%")
    assert "4/4" in last
    assert "failed=2" in last


def test_a_failure_is_compared_and_sent_without_its_trace() -> None:
    one = outcomes.failure(ValueError("x"))
    assert pickle.loads(pickle.dumps(one)) == Failure("ValueError", "x", trace="elsewhere")
