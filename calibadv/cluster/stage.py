"""The rollout stage: an engine in a Ray Data actor, rolling out questions under the policy version they belong to.

A row waits until its version is published; the engine then takes the newest weights, for which running rollouts of
older versions are first let finish, so that a trajectory is always sampled by one version. Where nothing trains,
engines keep the weights that they were built with (`weights = "own"`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray

from calibadv.cluster.board import Published, engine_name, find_board
from calibadv.cluster.engine import Engine, EngineDied
from calibadv.cluster.weights import fetch
from calibadv.rollout.protocols import GenerateFn, Generation, Sampling
from calibadv.types import IntArray

logger = logging.getLogger(__name__)

RollGroupFn = Callable[[dict[str, Any], GenerateFn, int], Awaitable[bytes]]
"""(row, generate, policy version) -> the group as bytes. Handles its own environment's failures; what it raises is a
bug and ends the run."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What every engine actor is built from; sent to it by pickle."""

    engine_factory: Callable[[], Engine]  # called in the actor
    rollout_factory: Callable[[], RollGroupFn]  # called in the actor
    board: str  # name of the policy board
    weights: Literal["board", "own"] = "board"  # own: those the engine was built with, as version 0; none are awaited
    max_staleness: int = 0  # a row of step s may run under version s - max_staleness or later
    max_engine_deaths: int = 10  # of the whole run; one more ends it

    def __post_init__(self) -> None:
        if self.max_staleness < 0:
            raise ValueError(f"max_staleness must be at least 0, got {self.max_staleness}")


class EngineGate:
    """Many rollouts or one change of weights. A waiting change lets no new rollout in."""

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


class RolloutStage:
    """The callable class that `Dataset.map_batches` keeps in each actor of its pool."""

    def __init__(self, settings: StageSettings, stream: str) -> None:
        self._settings = settings
        self._name = engine_name()
        self._board = find_board(settings.board)
        ray.get(self._board.enlist.remote(stream, [ray.get_runtime_context().current_actor]))
        self._engine = settings.engine_factory()
        self._roll_group = settings.rollout_factory()
        self._gate = EngineGate()
        # Of weights taken from the board; there the engine's own start does not count.
        self._version: int | None = 0 if settings.weights == "own" else None

    async def __call__(self, batch: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Roll out the batch's rows side by side; one output row each."""
        rows = [pickle.loads(row) for row in batch["row"]]
        done = await asyncio.gather(*(self._roll(row) for row in rows))
        yield {name: np.array([row[name] for row in done], dtype=_dtype(name)) for name in done[0]}

    async def _roll(self, row: dict[str, Any]) -> dict[str, Any]:
        arrived = time.time()
        needed = row.get("version")
        if needed is None:
            needed = row["step"] - self._settings.max_staleness
        newest = await self._board.wait.remote(needed) if self._settings.weights == "board" else 0
        if self._version is None or newest > self._version:
            await self._update(newest)
        async with self._gate.rollout():
            version, started = self._version, time.time()
            assert version is not None
            assert version >= needed, f"a row needs version {needed}, the engine serves {version}"
            payload = await self._roll_guarded(row, version)
        if not isinstance(payload, bytes):
            raise TypeError(f"a rollout function must return bytes, got {type(payload).__name__}")
        return {
            "step": row["step"],
            "index": row["index"],
            "engine": self._name,
            "version": version,
            "payload": payload,
            "arrived_s": arrived,
            "started_s": started,
            "finished_s": time.time(),
        }

    async def _roll_guarded(self, row: dict[str, Any], version: int) -> bytes:
        """Roll out; if the engine died meanwhile, whatever the rollout made of that, let Ray start another one."""
        guarded = _WatchedGenerate(self._engine)
        try:
            payload = await self._roll_group(row, guarded, version)
        except Exception:
            if guarded.death is None:
                raise
        if guarded.death is not None:
            await self._give_up(guarded.death)
        return payload

    async def _update(self, newest: int) -> None:
        async with self._gate.change():
            if self._version is not None and self._version >= newest:
                return  # another row did it while this one waited
            published: Published = await self._board.latest.remote()
            begun = time.perf_counter()
            try:
                await asyncio.to_thread(self._engine.load_weights, fetch(published.weights), published.version)
            except EngineDied as death:
                await self._give_up(death)
            self._version = published.version
            await self._board.report.remote(self._name, published.version)
            logger.debug("%s took version %d in %.3f s", self._name, published.version, time.perf_counter() - begun)

    async def _give_up(self, death: EngineDied) -> None:
        """End this process, so that Ray starts a new actor and runs its rows again; raise if too many have died."""
        deaths = await self._board.report_death.remote(self._name)
        if deaths > self._settings.max_engine_deaths:
            raise RuntimeError(f"{deaths} engines died in this run; the last one: {death}") from death
        logger.error("engine %s died and is replaced (death %d of this run): %s", self._name, deaths, death)
        os._exit(1)


class _WatchedGenerate:
    """A `GenerateFn` that remembers the engine's death."""

    def __init__(self, generate: GenerateFn) -> None:
        self._generate = generate
        self.death: EngineDied | None = None

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        try:
            return await self._generate(prompt_ids, sampling)
        except EngineDied as death:
            self.death = death
            raise


def _dtype(column: str) -> Any:
    return object if column in ("payload", "engine") else None
