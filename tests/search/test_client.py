"""Time-outs and retries by a fake clock: an answer, or `SearchFailed`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryingSearch, RetryPolicy
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
    """The client and the seconds that it slept; its clock is their sum."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return RetryingSearch(call, policy, sleep=sleep, clock=lambda: sum(waits), jitter=lambda: 0.5), waits


async def test_an_answer_at_once_is_one_attempt() -> None:
    search, waits = client(scripted(FOUND))
    assert await search("q") == FOUND
    assert waits == []


async def test_errors_are_retried_after_doubling_bounded_waits() -> None:
    errors = [RuntimeError("replica died")] * 4
    search, waits = client(scripted(*errors, FOUND), RetryPolicy(base_delay_s=1.0, max_delay_s=3.0))
    assert await search("q") == FOUND
    assert waits == [1.0, 2.0, 3.0, 3.0]


async def test_a_query_is_asked_until_its_patience_ends_and_once_more_then() -> None:
    # Failures at 0, 1, 3 and 6 s; the next wait of 3 s would pass 8 s, so that the last attempt comes right there.
    last = ConnectionError("port closed")
    search, waits = client(
        scripted(*[RuntimeError("a")] * 4, last), RetryPolicy(patience_s=8.0, base_delay_s=1.0, max_delay_s=3.0)
    )
    with pytest.raises(
        SearchFailed, match=r"5 attempts .*\(8.0 s in all\) for 'who\?'.*ConnectionError: port closed"
    ) as caught:
        await search("who?")
    assert waits == [1.0, 2.0, 3.0, 2.0]
    assert caught.value.__cause__ is last


async def test_half_a_character_is_in_no_document() -> None:
    search, _ = client(scripted((Document("1\ud83d", "a \ud83d", "b \ud83d 💡", 0.5),)), RetryPolicy())
    assert await search("q") == (Document("1?", "a ?", "b ? 💡", 0.5),)


async def test_no_patience_is_one_attempt() -> None:
    search, waits = client(scripted(RuntimeError("a"), FOUND), RetryPolicy(patience_s=0.0))
    with pytest.raises(SearchFailed, match="1 attempts"):
        await search("q")
    assert waits == []


async def test_a_long_outage_with_errors_at_once_is_sat_out() -> None:
    # 20 s without a server: more than the 2 s that a few attempts would take.
    seconds = 0.0

    async def sleep(wait_s: float) -> None:
        nonlocal seconds
        seconds += wait_s

    async def down_for_20_s(_: str) -> tuple[Document, ...]:
        if seconds < 20:
            raise ConnectionError("refused")
        return FOUND

    search = RetryingSearch(down_for_20_s, sleep=sleep, clock=lambda: seconds, jitter=lambda: 1.0)
    assert await search("q") == FOUND
    assert 20 <= seconds < 20 + 1.5 * RetryPolicy().max_delay_s


async def test_trouble_is_said_once_for_all_queries_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    seconds, down = 0.0, True

    async def sleep(_: float) -> None:
        nonlocal seconds
        seconds += 1
        await asyncio.sleep(0)

    async def call(query: str) -> tuple[Document, ...]:
        nonlocal down
        down = down and seconds < 30
        if down:
            raise ConnectionError(f"refused {query}")
        return FOUND

    search = RetryingSearch(call, sleep=sleep, clock=lambda: seconds)
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(*(search(f"q{i}") for i in range(3)))
    began, ended = (record.getMessage() for record in caplog.records)
    assert began.startswith("search has given no answer for 1")
    assert "ConnectionError: refused q" in began
    assert ended == "search answers again, after 30 s without an answer"

    caplog.clear()
    down, seconds = True, 15.0  # again, until the clock says 30
    with caplog.at_level(logging.WARNING):
        await search("q")
    assert [record.getMessage()[:16] for record in caplog.records] == ["search has given", "search answers a"]


async def test_short_trouble_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    search, waits = client(scripted(*[RuntimeError("busy")] * 3, FOUND), RetryPolicy(base_delay_s=1.0))
    assert await search("q") == FOUND
    assert sum(waits) == 7.0
    assert caplog.records == []


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


async def test_each_attempt_has_its_own_place_and_the_one_it_is_given_and_a_query_its_normal_form() -> None:
    entered: list[str] = []

    @asynccontextmanager
    async def place(name: str) -> AsyncIterator[None]:
        entered.append(name)
        yield

    async def call(query: str) -> tuple[Document, ...]:
        return (Document(query, "", ""),)

    search = RetryingSearch(call, normal=str.upper, place=lambda: place("own")).within(lambda: place("given"))
    assert (await search("q"))[0].id == "Q"
    assert entered == ["own", "given"]


async def test_cancellation_is_not_retried() -> None:
    search, _ = client(scripted(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await search("q")


async def test_no_document_is_an_answer() -> None:
    search, _ = client(scripted(()))
    assert await search("q") == ()


@pytest.mark.parametrize("wrong", [{"patience_s": -1.0}, {"timeout_s": 0.0}, {"base_delay_s": 0.0}])
def test_a_policy_that_cannot_be_followed_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a patience of at least 0 and all others above 0"):
        RetryPolicy(**wrong)
