"""Measure the export: CPU against a raw read, memory, rows per second, other requests meanwhile, replay.

    python bench/export.py                      every part, 10,000 letters: about two minutes
    python bench/export.py cpu --n 100000       one part: cpu, memory, ways, light, replay or others
    python bench/export.py --n 100000 --memory 10000 100000 1000000
                                                as published: half an hour, most of it to make the stores

Stores are made on the spot from a seed (see review_stores.py): letters of 2 KB with 1.5 corrections each. CPU seconds
are those of the exporting process, the best of three rounds in which the ways take turns; wall times depend on what
else the machine does, so its load stands beside them. `--folder` keeps the stores of SQLite for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import jsonpatch
import pandas as pd
import psutil
from arguments import whole
from review_stores import edits, fill, letter

from ocr_sprint.core.canonical import Json
from ocr_sprint.review.changes import changes
from ocr_sprint.review.edits import plan
from ocr_sprint.review.export import blocks, export_lines, write_corpus
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.manifest import differences, manifest_path
from ocr_sprint.review.replay import Event, inverse, reverse, to_json_patch
from ocr_sprint.review.samples import rows, sample_queries, snapshot
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.tokens import create_token
from ocr_sprint.review.verify_corpus import verify_corpus
from ocr_sprint.review.verify_store import verify_store

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from postgres_server import new_database, postgres_server

BLOCK = 64 * 1024
Row: TypeAlias = tuple[str, str, str]  # what was measured, the figure, its ratio to another


class Stores:
    """Stores of so many letters, made when they are asked for."""

    def __init__(self, folder: Path, seed: int, stack: ExitStack) -> None:
        self.folder, self.seed, self._stack = folder, seed, stack
        self._postgresql: dict[int, str] = {}

    def sqlite(self, count: int) -> str:
        """The URL of a file."""
        path = self.folder / f"letters-{self.seed}-{count}.db"
        if not path.exists():
            with open_store(f"sqlite:///{path}.part") as store:
                fill(store, count, self.seed)
            Path(f"{path}.part").rename(path)
        return f"sqlite:///{path}"

    def postgresql(self, count: int) -> str:
        """The URL of a database on a server of our own."""
        if count not in self._postgresql:
            server = self._stack.enter_context(postgres_server())
            url = self._stack.enter_context(new_database(server.url))
            with open_store(url) as store:
                fill(store, count, self.seed)
                with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("VACUUM ANALYZE")
            self._postgresql[count] = url
        return self._postgresql[count]


def raw_read(store: Store) -> None:
    """The floor: every column of both queries, merged, joined as text and written, and nothing understood."""
    first, second = sample_queries(ALL)
    block: list[str] = []
    held = 0
    with (
        Path(os.devnull).open("wb", buffering=0) as out,
        snapshot(store.engine) as (one, two),
        closing(rows(one, first)) as jobs,
        closing(rows(two, second)) as events,
    ):
        event = next(events, None)
        for job in jobs:
            block.append("\t".join(map(str, job)))
            held += len(block[-1])
            while event is not None and event[-1] == job[0]:
                block.append("\t".join(map(str, event)))
                held += len(block[-1])
                event = next(events, None)
            if held >= BLOCK:
                out.write("\n".join(block).encode())
                block, held = [], 0
        out.write("\n".join(block).encode())


def export(store: Store, as_of: Any = None) -> None:
    """The export as a stream: guard and proof of every letter."""
    with Path(os.devnull).open("wb", buffering=0) as out:
        for block in blocks(export_lines(store, ALL, as_of=as_of)):
            out.write(block)


def hashed_export(store: Store) -> None:
    """The same, with the hash of the whole."""
    digest = hashlib.sha256()
    for block in blocks(export_lines(store, ALL)):
        digest.update(block)


def cpu_seconds(deeds: dict[str, Callable[[], object]], times: int = 3) -> dict[str, float]:
    """CPU seconds of this process for each deed: the best of some rounds in which they take turns."""
    best = dict.fromkeys(deeds, float("inf"))
    for _ in range(times):
        for name, deed in deeds.items():
            start = time.process_time()
            deed()
            best[name] = min(best[name], time.process_time() - start)
    return best


def cpu_rows(stores: Stores, count: int, scratch: Path) -> Iterator[Row]:
    """CPU of the export against the raw read, on each backend."""
    for name, url in {"SQLite": stores.sqlite(count), "PostgreSQL": stores.postgresql(count)}.items():
        with open_store(url) as store:
            deeds: dict[str, Callable[[], object]] = {
                "raw read of the same columns": lambda store=store: raw_read(store),
                "export with guards and proofs": lambda store=store: export(store),
                "... and the hash of the whole": lambda store=store: hashed_export(store),
                "corpus, manifest and index on the disk": lambda store=store: write_corpus(
                    store, scratch / "corpus.jsonl", ALL
                ),
            }
            taken = cpu_seconds(deeds)
        raw = next(iter(taken.values()))
        for deed, seconds in taken.items():
            yield f"{name}: {deed}", f"{seconds:.2f} CPU s", f"{seconds / raw:.2f}"


def run(words: Sequence[str]) -> tuple[float, float, str]:
    """Wall seconds and CPU seconds of a command, and the last line that it said."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{words} ended with {process.returncode}: {said}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, said.strip().rpartition("\n")[2]


# The command, which tells in the end how large it was: what wait4 tells of it includes the process that started it.
COMMAND = """import sys
from ocr_sprint.tools.export_ground_truth import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def command(url: str, out: Path, times: int = 3) -> tuple[float, float, float]:
    """Wall and CPU seconds, and peak MB, of the command: corpus, manifest and index, and its record in the store."""
    words = [sys.executable, "-c", COMMAND, "--store", url, "--no-approved-only", "--out", str(out)]
    runs = [run(words) for _ in range(times)]
    return min(each[0] for each in runs), min(each[1] for each in runs), max(int(each[2]) for each in runs) / 1024


def memory_rows(stores: Stores, sizes: Sequence[int], scratch: Path) -> Iterator[Row]:
    """The most memory that the command ever held, in a process of its own for each size."""
    peaks = [command(stores.sqlite(size), scratch / "corpus.jsonl", 1)[2] for size in sizes]
    for size, peak in zip(sizes, peaks, strict=True):
        yield f"peak memory of the command, {size:,} letters", f"{peak:.1f} MB", f"{peak - peaks[0]:+.1f} MB"


DOWNLOAD = """import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"})
with urllib.request.urlopen(request) as answer:
    while answer.read(1 << 20): pass
"""


@contextmanager
def service(url: str, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A running service, and its process."""
    words = ["serve", "--port", "0", "--workers", "0", "--snapshots", str(folder / "snapshots"), "--store", url]
    words += ["--exports", "100000/minute", "--requests", "100000/minute"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ocr_sprint.tools.cli", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"serving at (http://\S+)", line)
            if found:
                yield found[1], psutil.Process(process.pid)
                return
        sys.exit("the service does not start")
    finally:
        process.terminate()
        process.wait(30)


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return times.user + times.system


def peak_of(process: psutil.Process) -> float:
    """The most MB that a process ever held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def downloads(url: str, base: str, names: Sequence[str]) -> list[list[str]]:
    """Commands that fetch the whole corpus, each with a token of its own."""
    with open_store(url) as store:
        tokens = [create_token(store, name, "admin") for name in names]
    address = f"{base}/api/v1/ground-truth/export?approved_only=false"
    return [[sys.executable, "-c", DOWNLOAD, address, token] for token in tokens]


def ways_rows(stores: Stores, count: int, scratch: Path) -> Iterator[Row]:
    """Rows per second from start to end, the best of three; the ratio is that of the CPU seconds."""
    first = None
    for name, url in {"SQLite": stores.sqlite(count), "PostgreSQL": stores.postgresql(count)}.items():
        wall, cpu, _ = command(url, scratch / "corpus.jsonl")
        first = first or cpu
        yield f"command on {name}", f"{count / wall:,.0f} rows/s, {cpu:.2f} CPU s", f"{cpu / first:.2f}"
    url, walls = stores.sqlite(count), []
    with service(url, scratch) as (base, process):
        (download,) = downloads(url, base, ["bench"])
        before = cpu_of(process)
        for _ in range(3):
            walls.append(run(download)[0])
        cpu, peak = (cpu_of(process) - before) / 3, peak_of(process)
    yield "HTTP on SQLite", f"{count / min(walls):,.0f} rows/s, {cpu:.2f} CPU s", f"{cpu / (first or cpu):.2f}"
    yield "peak memory of the service", f"{peak:.1f} MB", ""


def light_requests(base: str, until: Callable[[], bool]) -> pd.Series[float]:
    """Milliseconds of light requests, one after the other with a pause, until something is over."""
    taken: list[float] = []
    with closing(http.client.HTTPConnection(base.removeprefix("http://"))) as connection:
        while not until():
            start = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            taken.append(1000 * (time.perf_counter() - start))
            time.sleep(0.01)
    return pd.Series(taken[1:])  # the first waits until the service has started


def waited(process: psutil.Process) -> float:
    """Seconds that the thread which serves was ready and had to wait for a core."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9


def light_rows(stores: Stores, count: int, scratch: Path) -> Iterator[Row]:
    """A request that asks the database for one value, alone and while three exports run."""
    url = stores.sqlite(count)
    with service(url, scratch) as (base, process):
        deadline = time.monotonic() + 5
        alone = light_requests(base, lambda: time.monotonic() > deadline)
        running = [subprocess.Popen(words) for words in downloads(url, base, ["one", "two", "three"])]
        before, start = waited(process), time.monotonic()
        busy = light_requests(base, lambda: all(each.poll() is not None for each in running))
        share_waited = (waited(process) - before) / (time.monotonic() - start)
        if any(each.returncode for each in running):
            sys.exit("a download failed")
    for name, share in {"median": 0.5, "p99": 0.99}.items():
        quiet, loaded = alone.quantile(share), busy.quantile(share)
        yield f"{name} of GET /health, alone", f"{quiet:.1f} ms", "1.00"
        yield f"... during three exports ({len(busy)} requests)", f"{loaded:.1f} ms", f"{loaded / quiet:.2f}"
    yield "... the service was ready and waited for a core", f"{100 * share_waited:.0f} % of the time", ""


def histories(count: int, seed: int) -> list[tuple[Json, Json, list[Event]]]:
    """First output, result and corrections of some letters."""
    made: list[tuple[Json, Json, list[Event]]] = []
    for number in range(count):
        random = Random(f"{seed} history {number}")
        first = letter(random, number)
        result, events = plan(first, edits(random), Event(1, "set", "", None, None))
        made.append((first, result, events))
    return made


def replay_rows(seed: int, count: int = 2_000) -> Iterator[Row]:
    """CPU per event to undo whole histories: guard and change, against jsonpatch's test and replace."""
    made = histories(count, seed)
    number = sum(len(events) for _, _, events in made)
    patches = [
        jsonpatch.JsonPatch(to_json_patch([inverse(event) for event in reversed(events)])) for _, _, events in made
    ]
    for (first, result, events), patch in zip(made, patches, strict=True):
        if not reverse(result, events) == first == patch.apply(result):
            sys.exit("the two do not come to the same first output")

    def ours() -> None:
        for _, result, events in made:
            reverse(result, events)

    def theirs() -> None:
        for (_, result, _), patch in zip(made, patches, strict=True):
            patch.apply(result)

    taken = cpu_seconds({"ours": ours, "jsonpatch": theirs})
    for name, seconds in taken.items():
        figure = f"{1e6 * seconds / number:.2f} µs of CPU per event"
        yield f"undo a history, {name} ({number:,} events)", figure, f"{seconds / taken['ours']:.1f}"


def other_rows(stores: Stores, count: int, scratch: Path) -> Iterator[Row]:
    """What else walks over a whole store or corpus."""
    corpus, half = scratch / "whole.jsonl", scratch / "half.jsonl"
    with open_store(stores.sqlite(count)) as store:
        last = max(job.changed_at for job in islice(store.jobs(), 200))
        moment = pd.Timestamp(last).to_pydatetime() + pd.Timedelta(days=10_000)
        write_corpus(store, corpus, ALL)
        write_corpus(store, half)

        def follow() -> None:
            cursor = None
            while True:
                answer = changes(store, ALL, cursor)
                cursor = answer.cursor
                if not answer.more:
                    return

        deeds: dict[str, Callable[[], object]] = {
            "export of the present": lambda: export(store),
            "export as of a moment": lambda: export(store, moment),
            "feed of changes from the beginning": follow,
            "verify a corpus": lambda: verify_corpus(corpus),
            "diff of two manifests": lambda: list(differences(manifest_path(half), manifest_path(corpus))),
            "verify the store": lambda: list(verify_store(store)),
        }
        taken = cpu_seconds(deeds, times=1)
    for name, cpu in taken.items():
        yield name, f"{cpu:.2f} CPU s", f"{cpu / taken['export of the present']:.2f}"


PARTS = ("cpu", "memory", "ways", "light", "replay", "others")


def measure(part: str, stores: Stores, count: int, sizes: Sequence[int], scratch: Path) -> Iterable[Row]:
    """The rows of one part."""
    if part == "cpu":
        return cpu_rows(stores, count, scratch)
    if part == "memory":
        return memory_rows(stores, sizes, scratch)
    if part == "ways":
        return ways_rows(stores, count, scratch)
    if part == "light":
        return light_rows(stores, count, scratch)
    return replay_rows(stores.seed) if part == "replay" else other_rows(stores, count, scratch)


def main() -> None:
    """Measure the parts and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["all", *PARTS], default="all")
    parser.add_argument("--n", type=whole(100), default=10_000, help="letters")
    parser.add_argument("--memory", type=whole(100), nargs="+", help="sizes for the memory; else --n and a tenth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the stores here, and use those that are here")
    asked = parser.parse_args()
    if asked.folder is not None and not asked.folder.is_dir():
        parser.error(f"there is no folder {asked.folder}; make it first")
    sizes = sorted(asked.memory or {max(asked.n // 10, 100), asked.n})
    print(f"{asked.n:,} letters, seed {asked.seed}; Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch = Path(folder)
        stores = Stores(asked.folder or scratch, asked.seed, stack)
        for part in PARTS if asked.part == "all" else [asked.part]:
            table = pd.DataFrame(measure(part, stores, asked.n, sizes, scratch), columns=[part, "figure", "ratio"])
            print(f"\n{table.to_markdown(index=False, disable_numparse=True)}", flush=True)
            print(f"\n(load of the machine: {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    main()
