"""A lock that many readers or one writer hold."""

from __future__ import annotations

import asyncio

import pytest

from calibadv.cluster.read_write_lock import ReadWriteLock


async def test_a_writer_that_is_cancelled_while_it_waits_lets_others_in() -> None:
    lock = ReadWriteLock()

    async def write() -> None:
        async with lock.write():
            raise AssertionError("a reader holds it")

    async with lock.read():
        writer = asyncio.create_task(write())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        async with asyncio.timeout(10), lock.read():
            pass
    async with asyncio.timeout(10), lock.write():
        pass
