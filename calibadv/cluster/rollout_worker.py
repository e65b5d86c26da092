"""The rollout stage: an engine in a Ray Data actor, rolling out questions under the policy version they belong to.

A row waits until its version is published; the engine then takes the newest weights, for which running rollouts of
older versions are first let finish, so that a trajectory is always sampled by one version. Where nothing trains,
engines keep the weights that they were built with (`weights = "own"`).

An engine that shares its GPU with a learner (`colocated`) sleeps from its start, wakes for rows, and sleeps again
whenever the board calls it to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray

from calibadv.cluster.board import Published, find_board
from calibadv.cluster.engine import Engine, EngineDied, NamedTensors
from calibadv.cluster.gate import EngineGate
from calibadv.cluster.processes import Beats, this_process
from calibadv.cluster.rows import FinishedRow, RolloutRow
from calibadv.cluster.watched import Answers, WatchedGenerate, within
from calibadv.cluster.weights import fetch
from calibadv.rollout.group import RolledGroup
from calibadv.rollout.protocols import GenerateFn
from calibadv.rollout.tally import Tally

logger = logging.getLogger(__name__)

RollGroupFn = Callable[[RolloutRow, GenerateFn, int], Awaitable[RolledGroup]]
"""(row, generate, policy version) -> what came of it. Handles its own environment's failures; what it raises is a bug
and ends the run. One that has a `tally` is followed while it works."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What every engine actor is built from; sent to it by pickle."""

    engine_factory: Callable[[], Engine]  # called in the actor
    rollout_factory: Callable[[], RollGroupFn]  # called in the actor
    board: str  # name of the policy board
    rehearsal: Callable[[], NamedTensors] | None = None  # named as what is published: an engine must take it at start
    weights: Literal["board", "own"] = "board"  # own: those the engine was built with, as version 0; none are awaited
    max_staleness: int = 0  # a row of step s may run under version s - max_staleness or later
    max_engine_deaths: int = 10  # between two published versions; one more ends the run
    engine_timeout_s: float = 600.0  # an engine that answers nothing, or is silent, for so long has died
    colocated: bool = False  # with a learner on its GPU: one of them at a time has the memory

    def __post_init__(self) -> None:
        if self.max_staleness < 0:
            raise ValueError(f"max_staleness must be at least 0, got {self.max_staleness}")
        if self.engine_timeout_s <= 0:
            raise ValueError(f"engine_timeout_s must be above 0, got {self.engine_timeout_s}")


class RolloutStage:
    """The callable class that `Dataset.map_batches` keeps in each actor of its pool."""

    def __init__(self, settings: StageSettings, stream: str) -> None:
        self._settings = settings
        process = this_process(settings.engine_timeout_s)
        self._name = process.name
        self._board = find_board(settings.board)
        deaths = ray.get(self._board.enlist.remote(stream, [ray.get_runtime_context().current_actor], process))
        if deaths > settings.max_engine_deaths:
            raise RuntimeError(f"{deaths} engines died in this run, and no version was published in between")
        if settings.colocated:  # one that replaces another starts while learners may have the memory
            ray.get(self._board.wake.remote(self._name))
        self._engine = settings.engine_factory()
        if settings.rehearsal is not None:
            self._engine.load_weights(settings.rehearsal(), self._engine.version)
        self._asleep = settings.colocated
        if settings.colocated:
            self._engine.sleep()
            ray.get(self._board.sleeps.remote(self._name))
        self._roll_group = settings.rollout_factory()
        self._gate = EngineGate()
        self._answers = Answers()
        self._bedtime: asyncio.Task[None] | None = None
        # Of weights taken from the board; there the engine's own start does not count.
        self._version: int | None = 0 if settings.weights == "own" else None
        tally: Tally = getattr(self._roll_group, "tally", None) or Tally()
        self._beats = Beats(lambda: self._board.beat.remote(self._name, tally.now()), settings.engine_timeout_s)

    async def __call__(self, batch: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Roll out the batch's rows side by side; one output row each."""
        rows: list[RolloutRow] = [pickle.loads(row) for row in batch["row"]]
        done = await asyncio.gather(*(self._roll(row) for row in rows))
        yield {"row": np.array([pickle.dumps(row) for row in done], dtype=object)}

    async def _roll(self, row: RolloutRow) -> FinishedRow:
        self._attend()
        stalest = max(0, row.step - self._settings.max_staleness)
        needed = stalest if row.version is None else row.version
        newest = await self._board.wait.remote(needed) if self._settings.weights == "board" else 0
        while True:
            if self._asleep or self._version is None or newest > self._version:
                await self._prepare(newest)
            async with self._gate.rollout():
                if self._asleep:
                    continue  # called to rest between the two
                version, started = self._version, time.time()
                assert version is not None
                assert version >= needed, f"a row needs version {needed}, the engine serves {version}"
                rolled = await self._roll_guarded(row, version)
            break
        return FinishedRow(row.phase, row.step, row.index, self._name, rolled, started, time.time())

    async def _roll_guarded(self, row: RolloutRow, version: int) -> RolledGroup:
        """Roll out; if the engine died meanwhile, whatever the rollout made of that, let Ray start another one."""
        guarded = WatchedGenerate(self._engine, self._settings.engine_timeout_s, self._answers)
        try:
            rolled = await self._roll_group(row, guarded, version)
        except Exception:
            if guarded.death is None:
                raise
        if guarded.death is not None:
            await self._give_up(guarded.death)
        return rolled

    async def _prepare(self, newest: int) -> None:
        """Awake, and with the newest weights if those that it has are older than `newest`."""
        async with self._gate.change():
            try:
                if self._asleep:
                    await self._board.wake.remote(self._name)
                    await self._within(asyncio.to_thread(self._engine.wake), "waking up")
                    self._asleep = False
                if self._version is None or newest > self._version:  # else another row did it while this one waited
                    await self._take_weights()
            except EngineDied as death:
                await self._give_up(death)

    async def _take_weights(self) -> None:
        published: Published = await self._board.latest.remote()
        begun = time.perf_counter()
        loading = asyncio.to_thread(self._engine.load_weights, fetch(published.weights), published.version)
        await self._within(loading, f"taking the weights of version {published.version}")
        self._version = published.version
        await self._board.report.remote(self._name, published.version)
        logger.debug("%s took version %d in %.3f s", self._name, published.version, time.perf_counter() - begun)

    async def _within(self, call: Awaitable[None], what: str) -> None:
        await within(self._settings.engine_timeout_s, call, what)

    def _attend(self) -> None:
        """From the first row on: beats from the event loop, and an ear for the board's call to rest."""
        if self._bedtime is None:
            self._beats.follow(asyncio.get_running_loop())
            self._bedtime = asyncio.ensure_future(self._sleep_when_called())

    async def _sleep_when_called(self) -> None:
        while self._settings.colocated:
            await self._board.called_to_rest.remote(self._name)
            async with self._gate.change():
                try:
                    if not self._asleep:
                        await self._within(asyncio.to_thread(self._engine.sleep), "falling asleep")
                        self._asleep = True
                except Exception as error:  # it has its memory still: only its end gives that back
                    await self._board.report_death.remote(self._name, f"it could not be put to sleep: {error!r}")
                    os._exit(1)
                await self._board.sleeps.remote(self._name)

    async def _give_up(self, death: EngineDied) -> None:
        """End this process, so that Ray starts a new actor and runs its rows again; raise if too many have died."""
        deaths = await self._board.report_death.remote(self._name, str(death))
        if deaths > self._settings.max_engine_deaths:
            raise RuntimeError(f"{deaths} engines died in this run; the last one: {death}") from death
        logger.error("engine %s died and is replaced (death %d in a row): %s", self._name, deaths, death)
        os._exit(1)
