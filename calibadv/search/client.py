"""A search tool that either answers or says that it could not: time-outs, retries for a time, then `SearchFailed`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from copy import copy
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception, wait_exponential

from calibadv.retries import in_words
from calibadv.rollout.protocols import SearchFailed
from calibadv.sendable import sendable
from calibadv.types import Document

logger = logging.getLogger(__name__)

SearchCall = Callable[[str], Awaitable[tuple[Document, ...]]]

Place = Callable[[], AbstractAsyncContextManager[None]]
"""Around each attempt: entered when it may begin. What that takes is no time of the engine's."""

SAID_AFTER_S = 10.0  # without an answer, a client's trouble is worth a warning


class Refused(Exception):
    """The engine will answer this query in no other way: it is not asked again."""


class Busy(Exception):
    """The engine asks to be left alone for `seconds`."""

    def __init__(self, words: str, seconds: float) -> None:
        super().__init__(words)
        self.seconds = seconds


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


class RetryingSearch:
    """A `SearchFn` around any asynchronous search call. `sleep`, `clock` and `jitter` are for tests.

    `call` gets the query's `normal` form: `SearchConfig.cut`, where the engine may refuse what a policy writes.

    Every exception of `call` but `Refused` is retried: an overloaded, dying or restarting replica raises many kinds.
    Cancellation is not an error and goes straight through. When the patience is used up, `SearchFailed` names the last
    error: the rollout is then the environment's failure, never scored as a wrong answer (architecture, decision 6).

    What all queries of a client meet is said once: a warning after `SAID_AFTER_S` without any answer, and another when
    the search answers again.
    """

    def __init__(
        self,
        call: SearchCall,
        policy: RetryPolicy | None = None,
        *,
        normal: Callable[[str], str] = str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        place: Place = nullcontext,
    ) -> None:
        self._call = call
        self._normal = normal
        self._place = place
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._failing_since_s: float | None = None  # the first failed attempt after the last answer
        self._said = False

    def within(self, place: Place) -> RetryingSearch:
        """The same search, each attempt in such a place too."""
        own = self._place

        @asynccontextmanager
        async def both() -> AsyncIterator[None]:
            async with own(), place():
                yield

        narrowed = copy(self)
        narrowed._place = both
        return narrowed

    async def __call__(self, query: str) -> tuple[Document, ...]:
        """Ranked documents, best first, of text that UTF-8 has. Raises `SearchFailed`."""
        query = self._normal(query)
        started_s = self._clock()  # without the time for places

        def left_s() -> float:
            return started_s + self._policy.patience_s - self._clock()

        async def attempt() -> tuple[Document, ...]:
            nonlocal started_s
            asked_s = self._clock()
            async with self._place():
                started_s += self._clock() - asked_s
                async with asyncio.timeout(self._policy.timeout_s):
                    return await self._call(query)

        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, Refused)),
            stop=lambda _: left_s() <= 0,
            wait=lambda state: min(left_s(), self._delay_s(state)),
            after=lambda state: self._note_failure(query, _error_of(state)),
            sleep=self._sleep,
        )
        try:
            documents: tuple[Document, ...] = await attempts(attempt)
        except Refused as error:
            raise SearchFailed(f"the search engine refused {query[:80]!r}: {error}") from error
        except RetryError as error:
            last = error.last_attempt
            raise SearchFailed(
                f"search gave no answer in {last.attempt_number} attempts of at most {self._policy.timeout_s:g} s "
                f"({self._clock() - started_s:.1f} s in all) for {query[:80]!r}; the last one: "
                f"{in_words(last.exception())}. Is the search app up (serve status), and has it enough replicas?"
            ) from last.exception()
        self._note_answer()
        return sendable(documents)

    def _delay_s(self, state: RetryCallState) -> float:
        delay_s: float = wait_exponential(multiplier=self._policy.base_delay_s, max=self._policy.max_delay_s)(state)
        error = _error_of(state)
        asked_s = error.seconds if isinstance(error, Busy) else 0.0
        # Spread, so that queries that failed together do not return together.
        return asked_s + delay_s * (0.5 + self._jitter())

    def _note_failure(self, query: str, error: BaseException | None) -> None:
        logger.debug("search: %r failed: %s", query[:80], in_words(error))
        now_s = self._clock()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        failing_s = now_s - self._failing_since_s
        if failing_s >= SAID_AFTER_S and not self._said:
            self._said = True
            logger.warning(
                "search has given no answer for %.0f s (%s): rollouts wait for it, each query up to %g s",
                failing_s,
                in_words(error),
                self._policy.patience_s,
            )

    def _note_answer(self) -> None:
        if self._said and self._failing_since_s is not None:
            logger.warning(
                "search answers again, after %.0f s without an answer", self._clock() - self._failing_since_s
            )
        self._failing_since_s, self._said = None, False


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
