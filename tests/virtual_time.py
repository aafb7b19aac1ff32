"""An event loop whose clock jumps to the next timer instead of waiting for it: minutes of a run in a second."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

Value = TypeVar("Value")


class _Jumping(selectors.DefaultSelector):
    "Where the loop would sleep until a timer is due, the clock moves on."

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    "A loop in virtual time, for code that waits and computes and does no network."

    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run_virtually(monkeypatch: pytest.MonkeyPatch, program: Coroutine[Any, Any, Value]) -> Value:
    "Run a program of the labeller's; its clock and the loop's are one."
    from ocr_sprint.ground_truth import label_run

    class Clock:
        monotonic = staticmethod(lambda: loop.time())

    loop = VirtualLoop()
    with monkeypatch.context() as patched:
        patched.setattr(label_run, "time", Clock)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(program)
