"""Numbers on the command line of a bench."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(least: int = 1) -> Callable[[str], int]:
    """What reads a whole number from `least` up; the parser says in one line what is wrong with anything else."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return read
