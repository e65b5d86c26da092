"""Many callers of one search at once, each asking again as soon as it is answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

from calibadv.search.client import SearchCall


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
