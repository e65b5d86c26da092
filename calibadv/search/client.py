"""A search tool that either answers or says that it could not: time-out, bounded retries, then `SearchFailed`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from calibadv.rollout.protocols import SearchFailed
from calibadv.types import Document

logger = logging.getLogger(__name__)

SearchCall = Callable[[str], Awaitable[tuple[Document, ...]]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to give up on a query. Attempt n waits base_delay_s * 2^(n-1), at most max_delay_s, times 0.5 to 1.5."""

    timeout_s: float = 60.0  # of one attempt
    attempts: int = 6
    base_delay_s: float = 0.25
    max_delay_s: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.timeout_s <= 0 or self.base_delay_s < 0 or self.max_delay_s < 0:
            raise ValueError(f"{self} cannot be followed; expected attempts >= 1, timeout_s > 0 and no negative delay")


@dataclass(frozen=True, slots=True)
class ClientCounts:
    """What happened to a client's queries so far; sums and counts, so that many clients add up."""

    queries: int = 0  # finished, answered or not
    attempts: int = 0
    retries: int = 0
    timeouts: int = 0  # attempts that ran out of time
    errors: int = 0  # attempts that raised
    failures: int = 0  # queries given up
    latency_sum_s: float = 0.0  # of answered queries, waiting between attempts included


class RetryingSearch:
    """A `SearchFn` around any asynchronous search call. `sleep`, `clock` and `jitter` are for tests.

    Every exception of `call` is retried: an overloaded, dying or restarting replica raises many kinds. Cancellation is
    not an error and goes straight through. When all attempts are used up, `SearchFailed` names the last error: the
    rollout is then the environment's failure, never scored as a wrong answer (architecture, decision 6).
    """

    def __init__(
        self,
        call: SearchCall,
        policy: RetryPolicy | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._call = call
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._counts = ClientCounts()

    @property
    def counts(self) -> ClientCounts:
        """A snapshot."""
        return self._counts

    async def __call__(self, query: str) -> tuple[Document, ...]:
        """Ranked documents, best first. Raises `SearchFailed`."""
        started = self._clock()
        last: Exception | None = None
        for attempt in range(self._policy.attempts):
            if attempt:
                self._add(retries=1)
                await self._sleep(self._delay_s(attempt))
            self._add(attempts=1)
            try:
                async with asyncio.timeout(self._policy.timeout_s):
                    documents = await self._call(query)
            except TimeoutError as error:
                self._add(timeouts=1)
                last = error
            except Exception as error:
                self._add(errors=1)
                last = error
                logger.debug("search attempt %d failed: %r", attempt + 1, error)
            else:
                self._add(queries=1, latency_sum_s=self._clock() - started)
                return documents
        self._add(queries=1, failures=1)
        what = f"{type(last).__name__}: {last}" if str(last) else type(last).__name__
        raise SearchFailed(
            f"search gave no answer in {self._policy.attempts} attempts of {self._policy.timeout_s:g} s "
            f"({self._clock() - started:.1f} s in all) for {query[:80]!r}; the last one: {what}. "
            "Is the search app up (serve status), and has it enough replicas?"
        ) from last

    def _delay_s(self, attempt: int) -> float:
        delay_s = min(self._policy.max_delay_s, self._policy.base_delay_s * 2.0 ** (attempt - 1))
        return delay_s * (0.5 + self._jitter())  # spread, so that queries that failed together do not return together

    def _add(self, **more: float) -> None:
        now = self._counts
        self._counts = replace(now, **{name: getattr(now, name) + value for name, value in more.items()})
