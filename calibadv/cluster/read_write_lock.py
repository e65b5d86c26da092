"""A lock that many readers or one writer hold, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ReadWriteLock:
    """Between what an engine does (rollouts read) and what is done to it (new weights, sleep: they write).

    A waiting writer lets no new reader in.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._readers = 0
        self._writing = False

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """Holds it beside other readers."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._writing)
            self._readers += 1
        try:
            yield
        finally:
            async with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """Holds it alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._writing)
            self._writing = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._readers == 0)
            yield
        finally:
            async with self._changed:
                self._writing = False
                self._changed.notify_all()
