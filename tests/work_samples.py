"""Functions that other processes import by name for test_work."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

touched: list[str] = []


def square(number: int) -> int:
    return number * number


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def odd_ones_fail(number: int) -> bytes:
    if number % 2:
        raise ValueError(f"{number} is\nodd")
    return b"x" * number


def kill_itself_at_7(job: tuple[Path, int]) -> int:
    """Leave a trace of each call; the seventh kills its process as the kernel does when memory runs out."""
    folder, number = job
    with (folder / f"{number}").open("a") as trace:
        trace.write("called\n")
    time.sleep(0.02)
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def say_pid_and_sleep(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def pid(_: object) -> int:
    time.sleep(0.05)
    return os.getpid()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def touch() -> None:
    touched.append("once")


def times_touched(_: object) -> tuple[int, int]:
    return os.getpid(), len(touched)


def refuse() -> NoReturn:
    raise RuntimeError("no model in\nthis folder")


def lock(_: object) -> object:
    return threading.Lock()


def interval(folder: Path) -> tuple[float, float]:
    """When the call began and ended."""
    began = time.time()
    time.sleep(0.05)
    with (folder / "calls").open("a") as trace:
        trace.write("x")
    return began, time.time()
