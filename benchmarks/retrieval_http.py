"""Our search app, by HTTP and by Ray handle, beside a server of Search-R1's design: queries a CPU second, and p95.

64 callers ask one query at a time, the same questions of all; same encoder, same exact index, no reranker, no answers
from memory. The servers take turns; CPU seconds are those of all of a server's processes, Ray's too, and not those of
the callers. The passages' vectors are made up: they tell what a search costs, not what it finds.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.lines import Line, at_least, at_most, run, tree_cpu_s
from benchmarks.retrieval_load import APP
from benchmarks.retrieval_load import measure as load_of
from calibadv.cluster.local_ray import free_ports
from calibadv.cluster.ray_session import ray_at
from calibadv.data.questions import load_questions
from calibadv.json_lines import json_line
from calibadv.pocket import write_pocket_world
from calibadv.search.client import RetryPolicy, SearchCall
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig
from serve.app import start_search, stop_search
from serve.search_client import serve_search

log = logging.getLogger(__name__)

PASSAGES, WIDTH = (2_000, 100_000), 384
CALLERS, SECONDS, ROUNDS = 64, 6.0, 3
START_S = 180.0
OURS: dict[str, Any] = {"retriever": "dense", "reranker": "none", "top_k_retrieve": 3, "cache_size": 0}
ONCE = RetryPolicy(patience_s=0.0, timeout_s=60.0)  # a retry would hide what was refused in a longer latency
PEER = "peer"
SIDES = {  # how ours is asked, and its `search.query_dtype`
    "http": ("HTTP", "float32"),
    "http in bf16": ("HTTP", "bfloat16"),
    "handle": ("Ray handle", "float32"),
}


@dataclass(frozen=True, slots=True)
class Server:
    """How one side is asked, and the CPU seconds that its processes have taken so far."""

    search: Callable[[], SearchCall]
    spent_s: Callable[[], float]


def measure() -> list[Line]:
    """Two lines a side of ours and size of the corpus."""
    with ray_at():  # of the side that is asked by handle; another needs a second process
        ray = psutil.Process().children()
        return [line for passages in PASSAGES for line in _lines(passages, ray)]


def _lines(passages: int, ray: Sequence[psutil.Process]) -> list[Line]:
    sides = (PEER, *SIDES)
    per_s = dict.fromkeys(sides, 0.0)
    p95_ms = dict.fromkeys(sides, float("inf"))
    with tempfile.TemporaryDirectory() as made, ExitStack() as up:
        folder = Path(made)
        write_corpus(folder, passages)
        queries = [question.text for question in load_questions(write_pocket_world(folder / "pocket").train)]
        servers = {side: up.enter_context(served(side, folder, ray)) for side in sides}
        for _ in range(ROUNDS):
            for side, server in servers.items():
                rate, p95 = asyncio.run(_asked(side, server, queries))
                per_s[side], p95_ms[side] = max(per_s[side], rate), min(p95_ms[side], p95)
    lines = []
    peer = "a server of Search-R1's design"
    for side, (way, dtype) in SIDES.items():
        what = f"retrieval by {way}, {CALLERS} callers, {passages:,} passages, {dtype}, against {peer}"
        rates = f" ({per_s[side]:,.0f} and {per_s['peer']:,.0f} queries a CPU second)"
        times = f" ({p95_ms[side]:,.0f} and {p95_ms['peer']:,.0f} ms)"
        lines.append(at_least(what, per_s[side] / per_s["peer"], 3, more=rates))
        lines.append(at_most(f"{what}: p95", p95_ms[side] / p95_ms["peer"], 1, " x", times))
    return lines


def write_corpus(folder: Path, passages: int) -> None:
    """`corpus.jsonl` of passages of some forty words and `corpus.faiss`, their exact index of made-up unit vectors."""
    import faiss

    draw = np.random.default_rng(0)
    words = [f"word{number}" for number in range(5_000)]
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for row in range(passages):
            text = " ".join(words[place] for place in draw.integers(len(words), size=40))
            file.write(json_line({"id": str(row), "title": f"Passage {row}", "text": text}))
    vectors_ND = draw.standard_normal((passages, WIDTH), dtype=np.float32)
    faiss.normalize_L2(vectors_ND)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(vectors_ND)
    faiss.write_index(index, str(folder / "corpus.faiss"))


def served(side: str, folder: Path, ray: Sequence[psutil.Process]) -> AbstractContextManager[Server]:
    """A side's server, until the end of the block. `ray`: the processes of this process's own Ray."""
    if side == "handle":
        return _by_handle(folder, ray)
    if side == PEER:
        return _by_http(lambda port: ["benchmarks.peers.search_server", str(folder), port])
    settings = OURS | {"query_dtype": SIDES[side][1], "faiss_index": folder / "corpus.faiss"}
    flags = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    app = ["serve.app", "--corpus", str(folder / "corpus.jsonl"), "--cache-dir", str(folder / "cache"), *flags]
    return _by_http(lambda port: [*app, "--http-port", port])


@contextmanager
def _by_handle(folder: Path, ray: Sequence[psutil.Process]) -> Iterator[Server]:
    config = SearchConfig(**OURS, faiss_index=str(folder / "corpus.faiss"))
    start_search(config, folder / "corpus.jsonl", folder / "cache", APP)
    try:
        yield Server(partial(serve_search, APP, ONCE), lambda: sum(map(tree_cpu_s, ray)))
    finally:
        stop_search(APP)


@contextmanager
def _by_http(command: Callable[[str], list[str]]) -> Iterator[Server]:
    """`command`: the module that listens on a port, and its arguments."""
    (port,) = free_ports(1)
    listens = [sys.executable, "-m", *command(str(port))]
    process = psutil.Popen(listens, stdout=subprocess.DEVNULL)  # its log goes to standard error
    url = f"http://127.0.0.1:{port}/retrieve"
    try:
        _wait(url, process)
        yield Server(partial(http_search, SearchConfig(url=url), ONCE), partial(tree_cpu_s, process))
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: psutil.Process) -> None:
    until_s = time.monotonic() + START_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until_s:
        try:
            if httpx.post(url, json={"queries": ["begun"], "topk": 3}, timeout=30).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"{url} did not answer within {START_S:.0f} s")


async def _asked(side: str, server: Server, queries: list[str]) -> tuple[float, float]:
    """(answers a CPU second of the server's processes, 95th percentile of the latency in ms)."""
    search = server.search()
    before_s = server.spent_s()
    latencies_s, failed, _ = await load_of(search, queries, CALLERS, SECONDS)
    spent_s = server.spent_s() - before_s
    if failed:
        said = f"{side}: {failed} of {failed + len(latencies_s)} queries failed"
        if side != PEER:
            raise RuntimeError(said)
        log.warning("%s", said)  # a few of the peer's do on a busy machine; what it answered counts
    answered = len(latencies_s) + CALLERS  # each caller's first query is not in the latencies
    return answered / spent_s, 1000 * float(np.percentile(latencies_s, 95))


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
