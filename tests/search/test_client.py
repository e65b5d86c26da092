"""Time-outs and retries by a fake clock: an answer, or `SearchFailed`, and every attempt counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import ClientCounts, RetryingSearch, RetryPolicy
from calibadv.types import Document

FOUND = (Document("d", "", ""),)


def scripted(*outcomes: BaseException | tuple[Document, ...]) -> Callable[[str], Awaitable[tuple[Document, ...]]]:
    left = list(outcomes)

    async def call(query: str) -> tuple[Document, ...]:
        assert query
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call


def client(
    call: Callable[[str], Awaitable[tuple[Document, ...]]], policy: RetryPolicy | None = None
) -> tuple[RetryingSearch, list[float]]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return RetryingSearch(call, policy, sleep=sleep, clock=lambda: sum(waits), jitter=lambda: 0.5), waits


async def test_an_answer_at_once_is_one_attempt() -> None:
    search, waits = client(scripted(FOUND))
    assert await search("q") == FOUND
    assert waits == []
    assert search.counts == ClientCounts(queries=1, attempts=1)


async def test_errors_are_retried_after_doubling_bounded_waits() -> None:
    errors = [RuntimeError("replica died")] * 4
    search, waits = client(scripted(*errors, FOUND), RetryPolicy(attempts=5, base_delay_s=1.0, max_delay_s=3.0))
    assert await search("q") == FOUND
    assert waits == [1.0, 2.0, 3.0, 3.0]
    assert search.counts == ClientCounts(queries=1, attempts=5, retries=4, errors=4, latency_sum_s=9.0)


async def test_when_all_attempts_fail_the_last_error_is_named() -> None:
    last = ConnectionError("port closed")
    search, _ = client(scripted(RuntimeError("a"), last), RetryPolicy(attempts=2))
    with pytest.raises(SearchFailed, match=r"2 attempts.*'who\?'.*ConnectionError: port closed") as caught:
        await search("who?")
    assert caught.value.__cause__ is last
    assert (search.counts.failures, search.counts.errors) == (1, 2)


async def test_a_call_that_hangs_is_timed_out_and_tried_again() -> None:
    calls = 0

    async def hangs_once(_: str) -> tuple[Document, ...]:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return FOUND

    search, _ = client(hangs_once, RetryPolicy(timeout_s=0.01))
    assert await search("q") == FOUND
    assert (search.counts.timeouts, search.counts.errors, search.counts.retries) == (1, 0, 1)


async def test_cancellation_is_not_retried() -> None:
    search, _ = client(scripted(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await search("q")
    assert search.counts.attempts == 1


async def test_no_document_is_an_answer() -> None:
    search, _ = client(scripted(()))
    assert await search("q") == ()


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"timeout_s": 0.0}, {"base_delay_s": -1.0}])
def test_a_policy_that_cannot_be_followed_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected attempts >= 1"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
