"""What the labeller costs: share of the limit, CPU, memory, resume, writes, and a campaign of kills.

The provider is tests/llm_mock.py in a process of its own, with a latency of 500 ms. By Little's law N requests under
way are N / 0.5 s a second at most; what is measured is the share of that. Usage: bench/label.py [PART ...], else all.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import orjson

from ocr_sprint.core.llm_limits import Limits
from ocr_sprint.core.llm_server import chat_payload
from ocr_sprint.ground_truth.label import Order, label, prepare
from ocr_sprint.ground_truth.label_journal import entries
from ocr_sprint.ground_truth.label_run import SPREAD, Terms
from ocr_sprint.ground_truth.sample import draw_sample

ROOT = Path(__file__).resolve().parent.parent
FILTER = Path("filters/uplifting/v1")
LATENCY = 0.5
TEXT = "Forty families of the village dug a well together, and water-borne illness fell by half within a year. " * 12


@contextmanager
def provider(**settings: float) -> Iterator[str]:
    """The mock in a process of its own; its address."""
    words = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, str(ROOT / "tests" / "llm_mock.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = next(word for word in line.split() if word.startswith("http"))
        try:
            yield address
        finally:
            process.terminate()


def stats(address: str) -> dict[str, int]:
    """What the provider saw."""
    with urlopen(f"{address}/stats", timeout=10) as answer:
        told: dict[str, int] = json.load(answer)
    return told


def corpus(path: Path, count: int) -> str:
    """A corpus of articles of about 300 tokens."""
    with path.open("w", encoding="utf-8") as out:
        for n in range(count):
            out.write(json.dumps({"id": f"a-{n}", "title": f"Well {n}", "content": f"{TEXT} Well {n}."}) + "\n")
    return str(path)


def cpu() -> float:
    """Processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> int:
    """Peak resident memory in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


async def bare(address: str, bodies: list[bytes], concurrency: int) -> None:
    """The least that a client can do: send what is ready, and throw the answer away."""
    waiting = iter(bodies)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def work(begin: float) -> None:
            await asyncio.sleep(begin)
            for body in waiting:
                async with session.post(f"{address}/v1/chat/completions", data=body) as answer:
                    await answer.read()

        await asyncio.gather(*(work(SPREAD * n / concurrency) for n in range(concurrency)))


def bodies(folder: Path, source: str, address: str) -> list[bytes]:
    """The requests of a run, as they go over the wire."""
    prepared = prepare(Order(FILTER, [source], folder / "bodies", "server:tiny", base_url=address))
    return [orjson.dumps(chat_payload(prepared.asking.request(article), "tiny")) for article in prepared.todo]


WAYS = {
    "server:tiny": "/v1",
    "openai:gpt-4o-mini": "/v1",
    "claude-haiku": "",
    "google-genai:gemini-2.5-flash": "",
    "gemini-flash": "",
}


def throughput(folder: Path) -> None:
    """Requests a second against the limit, and CPU seconds for 1,000 records, for each way to ask."""
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        os.environ[name] = "fictitious"
    for concurrency, count in ((64, 2560), (512, 6144)):
        source = corpus(folder / "raw.jsonl", count)
        with provider(latency=LATENCY) as address:
            ready = bodies(folder / str(concurrency), source, address)
            used = cpu()
            asyncio.run(bare(address, ready, concurrency))
            row("bare client", concurrency, count, cpu() - used, address)
        for llm, path in WAYS.items():
            with provider(latency=LATENCY) as address:
                out = folder / llm.replace(":", "-") / str(concurrency)
                order = Order(FILTER, [source], out, llm, base_url=address + path, terms=Terms(concurrency))
                used = cpu()
                done = asyncio.run(label(order))
                assert done.written.labelled == count
                row(llm, concurrency, count, cpu() - used, address)
        curator(folder, concurrency)


def row(name: str, concurrency: int, count: int, used: float, address: str) -> None:
    """One line of the table: from the first request to the last answer, without the start that is spread out.

    The CPU is that of the whole run, its labels written.
    """
    rate = count / (float(stats(address)["seconds"]) + LATENCY - (0 if name.startswith("curator") else SPREAD))
    print(
        f"{name:30} N={concurrency:<4} {rate:7.1f} requests/s, {rate * LATENCY / concurrency:.2f} of the limit, "
        f"{used / count * 1000:.2f} CPU s / 1000",
        flush=True,
    )


CURATOR = """
import json, resource, sys
import tiktoken

class Quarter:  # the tables of real tokens would be fetched from the network; this saves the peer work
    def encode(self, text, **_):
        return [0] * (len(text) // 4)

tiktoken.get_encoding = tiktoken.encoding_for_model = lambda _: Quarter()
from bespokelabs import curator

class Labeller(curator.LLM):
    def prompt(self, row):
        return row["content"]
    def parse(self, row, reply):
        return {"id": row["id"], "reply": str(reply)}

address, source, concurrency = sys.argv[1], sys.argv[2], int(sys.argv[3])
limits = {"base_url": address, "max_requests_per_minute": 10**6, "max_tokens_per_minute": 10**9}
limits["max_concurrent_requests"] = concurrency
labeller = Labeller(model_name="gpt-4o-mini", backend="openai", backend_params=limits)
before = resource.getrusage(resource.RUSAGE_SELF)
result = labeller([json.loads(line) for line in open(source, encoding="utf-8")])
after = resource.getrusage(resource.RUSAGE_SELF)
assert len(result.dataset) == sum(1 for _ in open(source, encoding="utf-8"))
print("CPU", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def curator(folder: Path, concurrency: int = 64) -> None:
    """The same through bespokelabs-curator, where CURATOR_PYTHON names an interpreter that has it."""
    python = os.environ.get("CURATOR_PYTHON")
    if python is None:
        print("curator: left out; set CURATOR_PYTHON to an interpreter that has bespokelabs-curator")
        return
    count = {64: 2560}.get(concurrency, 6144)
    source = corpus(folder / "peer.jsonl", count)
    quiet = {"TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1", "HF_HUB_OFFLINE": "1"}
    quiet |= {
        "HOME": str(folder),
        "CURATOR_CACHE_DIR": str(folder / f"curator-{concurrency}"),
        "OPENAI_API_KEY": "none",
    }
    with provider(latency=LATENCY) as address:
        command = [python, "-c", CURATOR, f"{address}/v1", source, str(concurrency)]
        done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, check=True)
        used = float(next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("CPU ")))
        row("curator (openai)", concurrency, count, used, address)


def resume(folder: Path) -> None:
    """What a second start of 20,000 labels costs before it could send anything, and what was written for them."""
    order = Order(FILTER, [corpus(folder / "raw.jsonl", 20_000)], folder / "labels", "baseline", seed=42, target=20_000)
    asyncio.run(label(order))
    started, used = time.perf_counter(), cpu()
    prepared = prepare(order)
    wall, used = time.perf_counter() - started, cpu() - used
    print(f"resume of 20,000: {wall:.2f} s, {used:.2f} s of CPU; {len(prepared.todo)} to ask")
    size = {path.name: path.stat().st_size for path in prepared.folder.iterdir()}
    labels = size["labeled_articles.jsonl"]
    print(f"written per byte of labels: {sum(size.values()) / labels:.2f} ({size})")


def memory(folder: Path) -> None:
    """Peak memory of a sample of 2,000 out of sources of two sizes, each in a process of its own."""
    for count in (1_000, 1_000_000):
        path = folder / f"{count}.jsonl"
        with path.open("w", encoding="utf-8") as out:
            for n in range(count):
                out.write(json.dumps({"id": f"a-{n}", "content": f"Forty families dug well {n}."}) + "\n")
        subprocess.run([sys.executable, __file__, "--sample", str(path)], check=True)


def kills(folder: Path, count: int = 100) -> None:
    """A run of 2,000 records that is killed at random points, again and again."""
    chance, source = random.Random(1), corpus(folder / "raw.jsonl", 2_000)
    labels = folder / "labels" / "uplifting"
    journal = labels / "journal.jsonl"
    with provider(latency=0.1) as address:
        command = [sys.executable, "-m", "ocr_sprint.tools.batch_labeler", "--filter", str(FILTER), "--source", source]
        command += ["--output-dir", str(labels.parent), "--llm", "server:tiny", "--base-url", f"{address}/v1"]
        command += ["--concurrency", "4"]
        for _ in range(count):
            size = journal.stat().st_size if journal.exists() else 0
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and (not journal.exists() or journal.stat().st_size <= size):
                    time.sleep(0.01)  # until the first answer: a kill before it proves nothing
                time.sleep(chance.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        answered = stats(address)["seen"]["answered"]  # type: ignore[index]  # a table of its own
    found = [json.loads(line)["id"] for line in (labels / "labeled_articles.jsonl").read_text().splitlines()]
    keys = Counter(entry["key"] for _, entry in entries(journal) if entry["kind"] == "answer")
    twice = sum(times - 1 for times in keys.values())
    print(
        f"{count} kills: {len(set(found))} of 2,000 labelled, {twice} twice, {answered - 2_000} extra calls", flush=True
    )


def quota(folder: Path) -> None:
    """A provider that enforces 600 requests in any minute: refusals, and how much of the minute is used."""
    source = corpus(folder / "raw.jsonl", 1_500)
    with provider(latency=0.2, requests_a_window=600) as address:
        terms = Terms(limits=Limits(requests=600))
        order = Order(FILTER, [source], folder / "labels", "server:tiny", base_url=f"{address}/v1", terms=terms)
        asyncio.run(label(order))
        told = stats(address)
    rate = 1_499 / float(told["seconds"]) * 60
    refused = told["seen"].get("over_quota", 0)  # type: ignore[attr-defined]  # a table of its own
    print(
        f"600 a minute enforced: {refused} refused, {rate / 600:.1%} of the minute used between first and last request"
    )


PARTS = {
    "throughput": throughput,
    "curator": curator,
    "resume": resume,
    "memory": memory,
    "quota": quota,
    "kills": kills,
}


def main() -> None:
    """Run the parts that were named, or all of them."""
    if sys.argv[1:2] == ["--sample"]:
        sample = draw_sample([sys.argv[2]], 2_000, seed=42)
        print(f"sample of {len(sample.articles)} out of {sample.read}: peak {resident()} MB", flush=True)
        return
    if unknown := set(sys.argv[1:]) - PARTS.keys():
        sys.exit(f"usage: label.py [PART ...] with PART one of {', '.join(PARTS)}; not {', '.join(sorted(unknown))}")
    for name in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main()
