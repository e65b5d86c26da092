"""Many rollouts or one change of the engine: the lock between what an engine does and what is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class EngineGate:
    """Many rollouts or one change (of weights, of being asleep). A waiting change lets no new rollout in."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._running = 0
        self._changing = False

    @asynccontextmanager
    async def rollout(self) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._changing)
            self._running += 1
        try:
            yield
        finally:
            async with self._condition:
                self._running -= 1
                self._condition.notify_all()

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        async with self._condition:
            await self._condition.wait_for(lambda: not self._changing)
            self._changing = True
            await self._condition.wait_for(lambda: self._running == 0)
        try:
            yield
        finally:
            async with self._condition:
                self._changing = False
                self._condition.notify_all()
