"""A search tool that either answers or says that it could not: time-outs, retries for a time, then `SearchFailed`."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from calibadv.rollout.protocols import SearchFailed
from calibadv.types import Document

logger = logging.getLogger(__name__)

SearchCall = Callable[[str], Awaitable[tuple[Document, ...]]]

SAID_AFTER_S = 10.0  # without an answer, a client's trouble is worth a warning


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to give up on a query: it is tried until `patience_s` have passed since it was first asked.

    Failure n waits base_delay_s * 2^(n-1), at most max_delay_s, times 0.5 to 1.5. An attempt that is under way when the
    patience ends may finish, so that a query takes at most patience_s + timeout_s. A patience of 0 is one attempt.
    """

    timeout_s: float = 60.0  # of one attempt
    patience_s: float = 120.0
    base_delay_s: float = 0.25
    max_delay_s: float = 5.0

    def __post_init__(self) -> None:
        if min(self.timeout_s, self.base_delay_s, self.max_delay_s) <= 0 or self.patience_s < 0:
            raise ValueError(f"{self} cannot be followed; expected a patience of at least 0 and all others above 0")


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
    not an error and goes straight through. When the patience is used up, `SearchFailed` names the last error: the
    rollout is then the environment's failure, never scored as a wrong answer (architecture, decision 6).

    What all queries of a client meet is said once: a warning after `SAID_AFTER_S` without any answer, and another when
    the search answers again.
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
        self._failing_since_s: float | None = None  # the first failed attempt after the last answer
        self._said = False

    @property
    def counts(self) -> ClientCounts:
        """A snapshot."""
        return self._counts

    async def __call__(self, query: str) -> tuple[Document, ...]:
        """Ranked documents, best first. Raises `SearchFailed`."""
        started_s = self._clock()
        for attempt in itertools.count(1):
            self._add(attempts=1)
            try:
                async with asyncio.timeout(self._policy.timeout_s):
                    documents = await self._call(query)
            except TimeoutError as error:
                self._add(timeouts=1)
                last: Exception = error
            except Exception as error:
                self._add(errors=1)
                last = error
            else:
                self._add(queries=1, latency_sum_s=self._clock() - started_s)
                self._note_answer()
                return documents
            self._note_failure(last)
            left_s = started_s + self._policy.patience_s - self._clock()
            if left_s <= 0:
                break
            self._add(retries=1)
            await self._sleep(min(left_s, self._delay_s(attempt)))
        self._add(queries=1, failures=1)
        raise SearchFailed(
            f"search gave no answer in {attempt} attempts of at most {self._policy.timeout_s:g} s "
            f"({self._clock() - started_s:.1f} s in all) for {query[:80]!r}; the last one: {_named(last)}. "
            "Is the search app up (serve status), and has it enough replicas?"
        ) from last

    def _note_failure(self, error: Exception) -> None:
        now_s = self._clock()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        failing_s = now_s - self._failing_since_s
        if failing_s >= SAID_AFTER_S and not self._said:
            self._said = True
            logger.warning(
                "search has given no answer for %.0f s (%s): rollouts wait for it, each query up to %g s",
                failing_s,
                _named(error),
                self._policy.patience_s,
            )

    def _note_answer(self) -> None:
        if self._said and self._failing_since_s is not None:
            logger.warning(
                "search answers again, after %.0f s without an answer", self._clock() - self._failing_since_s
            )
        self._failing_since_s, self._said = None, False

    def _delay_s(self, failures: int) -> float:
        # The exponent is capped: a float's ends at 1023, and patience may outlast that many failures.
        delay_s = min(self._policy.max_delay_s, self._policy.base_delay_s * 2.0 ** min(failures - 1, 60))
        return delay_s * (0.5 + self._jitter())  # spread, so that queries that failed together do not return together

    def _add(self, **more: float) -> None:
        now = self._counts
        self._counts = replace(now, **{name: getattr(now, name) + value for name, value in more.items()})


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
