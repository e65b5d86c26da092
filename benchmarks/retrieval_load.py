"""Queries a second and latency of the search app on Ray Serve, for one caller and for many at once."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibadv.cluster.local_ray import free_ports
from calibadv.search.client import RetryPolicy, SearchCall
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig
from serve.app import start_search, stop_search
from serve.search_client import serve_search

log = logging.getLogger(__name__)

APP = "retrieval-benchmark"
HEAD = ("callers", "by", "queries", "failed", "queries/s", "p50 ms", "p95 ms")


def load_rows(
    queries: Sequence[str],
    corpus: Path,
    config: SearchConfig,
    callers: Sequence[int],
    by: Sequence[str],
    seconds: float,
    cache_dir: Path,
) -> list[list[str | int | float]]:
    """A row of `HEAD` for each number of callers, by Serve handle and by HTTP. Starts the app, and stops it.

    Each caller asks, waits for the answer, and asks again for `seconds`. Turn the query cache off in `config`: a
    repeated query would measure the cache. Ray must be running.
    """
    (port,) = free_ports(1)
    served = config.but(http_port=port, url=f"http://127.0.0.1:{port}/retrieve")
    start_search(served, corpus, cache_dir, APP)
    try:
        rows = []
        for way, count in itertools.product(by, callers):
            row = asyncio.run(_one_load(queries, way, served, count, seconds))
            log.info("%d callers by %s: %.1f queries/s", count, way, row[4])
            rows.append(row)
        return rows
    finally:
        stop_search(APP)


async def _one_load(
    queries: Sequence[str], by: str, config: SearchConfig, callers: int, seconds: float
) -> list[str | int | float]:
    # One attempt: a retry would hide what was refused in a longer latency.
    once = RetryPolicy(patience_s=0.0, timeout_s=60.0)
    search: SearchCall = serve_search(APP, once) if by == "handle" else http_search(config, once)
    latencies_s, failed, wall_s = await measure(search, queries, callers, seconds)
    if not latencies_s:
        raise RuntimeError(f"none of {failed} queries was answered by {by}: see the replica's log")
    p50_s, p95_s = np.percentile(latencies_s, [50, 95])
    rate = len(latencies_s) / wall_s
    return [callers, by, len(latencies_s), failed, round(rate, 1), round(1000 * p50_s, 1), round(1000 * p95_s, 1)]


async def measure(
    search: SearchCall, queries: Sequence[str], callers: int, seconds: float
) -> tuple[list[float], int, float]:
    """(latencies of answered queries in seconds, how many failed, wall time in seconds) of `callers` at once.

    No caller begins a query after `seconds`; the wall time runs until the last answer. All share the list of queries,
    in turn, and begin with one query each that is not measured.
    """
    endless = itertools.cycle(queries)
    latencies_s: list[float] = []
    failed = 0

    async def caller(until_s: float) -> None:
        nonlocal failed
        while (begun_s := time.perf_counter()) < until_s:
            try:
                await search(next(endless))
            except Exception:  # SearchFailed, or whatever the transport raises: counted, and the load goes on
                failed += 1
            else:
                latencies_s.append(time.perf_counter() - begun_s)

    await asyncio.gather(*(search(next(endless)) for _ in range(callers)), return_exceptions=True)
    started_s = time.perf_counter()
    await asyncio.gather(*(caller(started_s + seconds) for _ in range(callers)))
    return latencies_s, failed, time.perf_counter() - started_s
