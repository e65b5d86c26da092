"""Which colocated engines hold their memory, and whether they may: engines and learners take turns on a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Engine:
    awake: bool = False  # it holds memory of its GPU, or may
    slept: bool = False  # it has started and gone to sleep at least once


class SleepControl:
    """Engines that are asked to sleep, and say that they do."""

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}
        self._asked = False
        self._changed = asyncio.Condition()

    async def add(self, engine: str) -> None:
        """An engine is starting."""
        self._engines[engine] = _Engine()

    async def remove(self, engine: str) -> None:
        """The engine is gone, and its memory free."""
        await self._change(lambda: self._engines.pop(engine, None))

    def awake(self) -> tuple[str, ...]:
        """Engines that hold memory, or may."""
        return tuple(name for name, engine in self._engines.items() if engine.awake)

    async def ask(self) -> None:
        """Asks every engine to sleep; none wakes before `allow`."""
        await self._set_asked(True)

    async def allow(self) -> None:
        """Engines may wake again."""
        await self._set_asked(False)

    async def all_asleep(self) -> None:
        """Returns when no engine holds its memory."""
        await self._until(lambda: not self.awake())

    async def asked(self, engine: str) -> None:
        """Returns when the engine is to sleep and does not."""
        await self._until(lambda: self._asked and engine in self.awake())

    async def wake(self, engine: str) -> None:
        """Returns when the engine may take its memory; from here on it counts as awake."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._asked)
            if engine in self._engines:  # of one that was given up nothing is heard
                self._engines[engine].awake = True

    async def asleep(self, engine: str) -> None:
        """The engine has given its memory back."""
        await self._change(lambda: self._set_asleep(engine))

    async def started(self, engines: int) -> None:
        """Returns when so many engines have started and sleep."""
        await self._until(lambda: sum(e.slept and not e.awake for e in self._engines.values()) >= engines)

    def _set_asleep(self, name: str) -> None:
        if (engine := self._engines.get(name)) is not None:
            engine.awake, engine.slept = False, True

    async def _set_asked(self, asked: bool) -> None:
        async with self._changed:
            self._asked = asked
            self._changed.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _change(self, change: Callable[[], object]) -> None:
        async with self._changed:
            change()
            self._changed.notify_all()
