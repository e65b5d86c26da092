"""Our search app by HTTP beside a server of Search-R1's design: queries a CPU second, and p95.

64 callers ask one query at a time, the same questions of all; same encoder, same exact index, no reranker, no answers
from memory. The servers take turns; CPU seconds are those of all of a server's processes, Ray's too. The passages'
vectors are made up: they tell what a search costs, not what it finds.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil

from benchmarks.lines import Line, at_least, at_most, run, tree_cpu_s
from benchmarks.retrieval_load import measure as load_of
from calibadv.cluster.local_ray import free_ports
from calibadv.data.questions import load_questions
from calibadv.json_lines import json_line
from calibadv.pocket import write_pocket_world
from calibadv.search.client import RetryPolicy
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig

PASSAGES, WIDTH = (2_000, 100_000), 384
CALLERS, SECONDS, ROUNDS = 64, 6.0, 3
START_S = 180.0
OURS = ("--retriever", "dense", "--reranker", "none", "--top-k-retrieve", "3", "--cache-size", "0")
SIDES = ("peer", "float32", "bfloat16")  # the peer, and ours by `search.query_dtype`


def measure() -> list[Line]:
    """Four lines a size of the corpus."""
    return [line for passages in PASSAGES for line in _lines(passages)]


def _lines(passages: int) -> list[Line]:
    per_s = dict.fromkeys(SIDES, 0.0)
    p95_ms = dict.fromkeys(SIDES, float("inf"))
    with tempfile.TemporaryDirectory() as made, ExitStack() as up:
        folder = Path(made)
        write_corpus(folder, passages)
        queries = [question.text for question in load_questions(write_pocket_world(folder / "pocket").train)]
        servers = {side: up.enter_context(served(side, folder)) for side in SIDES}
        for _ in range(ROUNDS):
            for side, (url, process) in servers.items():
                rate, p95 = asyncio.run(_asked(url, process, queries))
                per_s[side], p95_ms[side] = max(per_s[side], rate), min(p95_ms[side], p95)
    lines = []
    peer = "a server of Search-R1's design"
    for side in SIDES[1:]:
        what = f"retrieval by HTTP, {CALLERS} callers, {passages:,} passages, {side}, against {peer}"
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


@contextmanager
def served(side: str, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server's `/retrieve`, and its process, until the end of the block."""
    (port,) = free_ports(1)
    if side == "peer":
        command = ["-m", "benchmarks.peers.search_server", str(folder), str(port)]
    else:
        corpus, cache, index = (str(folder / name) for name in ("corpus.jsonl", "cache", "corpus.faiss"))
        app = ["-m", "serve.app", "--corpus", corpus, "--cache-dir", cache, "--http-port", str(port)]
        command = [*app, "--faiss-index", index, "--query-dtype", side, *OURS]
    process = psutil.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)  # its log goes to standard error
    url = f"http://127.0.0.1:{port}/retrieve"
    try:
        _wait(url, process)
        yield url, process
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


async def _asked(url: str, process: psutil.Process, queries: list[str]) -> tuple[float, float]:
    """(answers a CPU second of the server's processes, 95th percentile of the latency in ms)."""
    search = http_search(SearchConfig(url=url), RetryPolicy(patience_s=0.0, timeout_s=60.0))
    before_s = tree_cpu_s(process)
    latencies_s, failed, _ = await load_of(search, queries, CALLERS, SECONDS)
    spent_s = tree_cpu_s(process) - before_s
    if failed:
        raise RuntimeError(f"{url}: {failed} of {failed + len(latencies_s)} queries failed")
    answered = len(latencies_s) + CALLERS  # each caller's first query is not in the latencies
    return answered / spent_s, 1000 * float(np.percentile(latencies_s, 95))


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
