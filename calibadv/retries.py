"""The user's own call, made again where it raises: with pauses that double; and an error in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, stop_after_attempt, wait_exponential

T = TypeVar("T")

PAUSE_S = 0.5  # after the first attempt


def in_words(error: BaseException | None) -> str:
    """An error's kind and, where it says something, what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def retried(attempt: Callable[[], Awaitable[T]], retries: int, *, pause_s: float = PAUSE_S) -> T:
    """What an attempt returns, made up to `retries` times more. Raises what the last one raises.

    Cancellation is no failure and goes straight through.
    """
    attempts = AsyncRetrying(
        stop=stop_after_attempt(retries + 1), wait=wait_exponential(multiplier=pause_s), reraise=True
    )
    return await attempts(attempt)
