"""A call that is made again where it raises."""

from __future__ import annotations

import asyncio

import pytest

from calibadv.retries import retried


class Flaky:
    """Raises at its first calls, then says which call it is."""

    def __init__(self, failures: int, error: BaseException) -> None:
        self.calls, self.failures, self.error = 0, failures, error

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_the_first_answer_counts(failures: int) -> None:
    assert await retried(Flaky(failures, ConnectionError("away")), 2, pause_s=0.0) == failures + 1


async def test_the_last_error_is_raised_as_it_is() -> None:
    call = Flaky(9, ConnectionError("away"))
    with pytest.raises(ConnectionError, match="away"):
        await retried(call, 2, pause_s=0.0)
    assert call.calls == 3


async def test_cancellation_is_no_failure() -> None:
    call = Flaky(9, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await retried(call, 2, pause_s=0.0)
    assert call.calls == 1


async def test_pauses_double(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await retried(Flaky(3, ConnectionError("away")), 3, pause_s=0.5) == 4
    assert paused == [0.5, 1.0, 2.0]
