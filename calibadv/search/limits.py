"""How often and how many at a time an engine is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager


class Limits:
    """Places for calls, in the order in which they are asked for. `sleep` and `clock` are for tests.

    Calls begin at least 1 / `calls_per_second` apart, so that no second holds more, and at most `concurrency` are in
    flight. None: no such limit.
    """

    def __init__(
        self,
        calls_per_second: float | None = None,
        concurrency: int | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._apart_s = 1.0 / calls_per_second if calls_per_second else 0.0
        self._places = asyncio.Semaphore(concurrency) if concurrency else None
        self._line = asyncio.Lock()
        self._next_s = clock()
        self._sleep, self._clock = sleep, clock
        self.calls = 0  # that have begun

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Around one call: entered when it may begin."""
        async with AsyncExitStack() as stack:
            if self._places is not None:
                await stack.enter_async_context(self._places)
            async with self._line:
                while (wait_s := self._next_s - self._clock()) > 0:
                    await self._sleep(wait_s)
                self._next_s = self._clock() + self._apart_s
            self.calls += 1
            yield
