"""The rollout worker: an engine in a Ray Data actor, rolling out questions under the policy version they belong to.

A row waits until its version is published; the engine then takes the newest weights, for which running rollouts of
older versions are first let finish, so that a trajectory is always sampled by one version; or they go on with the new
ones (`keep_rollouts`). Where nothing trains, engines keep the weights that they were built with (`weights = "own"`).

An engine that shares its GPU with a learner (`colocated`) sleeps from its start, wakes for rows, and sleeps again
whenever it is asked to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import numpy as np
import ray

from calibadv.cluster.coordinator import find_coordinator
from calibadv.cluster.engine import Engine, LiveEngine, NamedTensors
from calibadv.cluster.engine_timeout import LastAnswer, TimedGenerate, within
from calibadv.cluster.packed import PackedWeights
from calibadv.cluster.policy_store import Published
from calibadv.cluster.processes import EngineProcess, Heartbeat, this_process
from calibadv.cluster.read_write_lock import ReadWriteLock
from calibadv.cluster.rows import FinishedRow, RolloutRow
from calibadv.cluster.weights import fetch
from calibadv.garbage import uncollected
from calibadv.rollout.group import RolledGroup
from calibadv.rollout.protocols import EngineDied, GenerateFn
from calibadv.rollout.tally import Tally
from calibadv.threads import in_thread

logger = logging.getLogger(__name__)

RollGroupFn = Callable[[RolloutRow, GenerateFn, int], Awaitable[RolledGroup]]
"""(row, generate, policy version) -> what came of it. Handles its own environment's failures; what it raises is a bug
and ends the run. One that has a `tally` is followed while it works."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker is built from; sent to it by pickle."""

    engine_factory: Callable[[], Engine]  # called in the actor
    rollout_factory: Callable[[], RollGroupFn]  # called in the actor
    coordinator: str  # its name
    # Named and shaped as what is published: an engine must take them at its start.
    placeholder_weights: Callable[[], NamedTensors] | None = None
    # own: those the engine was built with, as version 0; none are awaited
    weights: Literal["published", "own"] = "published"
    max_staleness: int = 0  # a row of step s may run under version s - max_staleness or later
    keep_rollouts: bool = False  # they run on when new weights come; of a `LiveEngine`
    max_engine_deaths: int = 10  # between two published versions; one more ends the run
    engine_timeout_s: float = 600.0  # an engine that answers nothing, or is silent, for so long has died
    colocated: bool = False  # with a learner on its GPU: one of them at a time has the memory

    def __post_init__(self) -> None:
        if self.max_staleness < 0:
            raise ValueError(f"max_staleness must be at least 0, got {self.max_staleness}")
        if self.engine_timeout_s <= 0:
            raise ValueError(f"engine_timeout_s must be above 0, got {self.engine_timeout_s}")


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What a worker finds around it: its actor, its process, and the coordinator."""

    coordinator: Any  # its handle
    actor: Any  # the handle of the actor that the worker lives in
    process: EngineProcess
    get: Callable[[Any], Any] = ray.get  # blocks for an answer of the coordinator
    fetch: Callable[[PackedWeights], NamedTensors] = fetch
    exit: Callable[[int], NoReturn] = os._exit  # ends the process


def actor_context(settings: WorkerSettings) -> WorkerContext:
    """The context of a worker in the Ray actor that this is called in."""
    process = this_process(settings.engine_timeout_s)
    return WorkerContext(find_coordinator(settings.coordinator), ray.get_runtime_context().current_actor, process)


class RolloutWorker:
    """The callable class that `Dataset.map_batches` keeps in each actor of its pool."""

    def __init__(self, settings: WorkerSettings, stream: str, context: WorkerContext | None = None) -> None:
        self._settings = settings
        self._context = context = context or actor_context(settings)
        self._coordinator, self._name = context.coordinator, context.process.name
        deaths = context.get(self._coordinator.register.remote(stream, [context.actor], context.process))
        if deaths > settings.max_engine_deaths:
            raise RuntimeError(f"{deaths} engines died in this run, and no version was published in between")
        if settings.colocated:  # one that replaces another starts while learners may have the memory
            context.get(self._coordinator.wake.remote(self._name))
        with uncollected():
            self._engine = settings.engine_factory()
        if settings.placeholder_weights is not None:
            self._engine.load_weights(settings.placeholder_weights(), self._engine.version)
        self._asleep = settings.colocated
        if settings.colocated:
            self._engine.sleep()
            context.get(self._coordinator.asleep.remote(self._name))
        self._roll_group = settings.rollout_factory()
        self._lock = ReadWriteLock()  # rollouts read, whatever changes the engine writes
        self._preparing = asyncio.Lock()  # one row does it, the others wait for that row and not for one another
        self._last_answer = LastAnswer()
        self._sleeper: asyncio.Task[None] | None = None
        # Of published weights; there the engine's own start does not count.
        self._version: int | None = 0 if settings.weights == "own" else None
        tally: Tally = getattr(self._roll_group, "tally", None) or Tally()
        self._heartbeat = Heartbeat(
            lambda: self._coordinator.heartbeat.remote(self._name, tally.now()), settings.engine_timeout_s
        )

    async def __call__(self, batch: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Rolls out the batch's rows side by side; one output row each."""
        rows: list[RolloutRow] = [pickle.loads(row) for row in batch["row"]]
        done = await asyncio.gather(*(self.roll(row) for row in rows))
        yield {"row": np.array([pickle.dumps(row) for row in done], dtype=object)}

    async def roll(self, row: RolloutRow) -> FinishedRow:
        """Rolls out one row, when its version is there."""
        self._start_listening()
        stalest = max(0, row.step - self._settings.max_staleness)
        needed = stalest if row.version is None else row.version
        newest = await self._coordinator.wait.remote(needed) if self._settings.weights == "published" else 0
        while True:
            await self._prepare(newest)
            async with self._lock.read():
                if self._asleep:
                    continue  # asked to sleep between the two
                version, started_s = self._version, time.time()
                assert version is not None
                assert version >= needed, f"a row needs version {needed}, the engine serves {version}"
                rolled = await self._roll_guarded(row, version)
            break
        return FinishedRow(
            row.phase,
            row.step,
            row.index,
            self._name,
            rolled,
            row.sampled,
            started_s,
            time.time(),
            mixed=self._version != version,
        )

    async def _roll_guarded(self, row: RolloutRow, version: int) -> RolledGroup:
        """Rolls out; if the engine died meanwhile, whatever the rollout made of that, lets Ray start another one."""
        guarded = TimedGenerate(self._engine, self._settings.engine_timeout_s, self._last_answer)
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
        async with self._preparing:
            if not (self._asleep or self._older_than(newest)):
                return
            keep = self._settings.keep_rollouts and self._version is not None
            async with self._lock.read() if keep else self._lock.write():
                try:
                    if self._asleep:
                        await self._coordinator.wake.remote(self._name)
                        await self._within(in_thread(self._engine.wake), "waking up")
                        self._asleep = False
                        self._version = None  # its weights may not have survived
                    if self._older_than(newest):
                        live = cast(LiveEngine, self._engine)
                        await self._take_weights(live.exchange_weights if keep else self._engine.load_weights)
                except EngineDied as death:
                    await self._give_up(death)

    def _older_than(self, version: int) -> bool:
        return self._version is None or self._version < version

    async def _take_weights(self, load: Callable[[NamedTensors, int], None]) -> None:
        published: Published = await self._coordinator.latest.remote()
        begun = time.perf_counter()
        weights = self._context.fetch(published.weights)
        loading = in_thread(load, weights, published.version)
        await self._within(loading, f"taking the weights of version {published.version}")
        self._version = published.version
        await self._coordinator.serves.remote(self._name, published.version)
        logger.debug("%s took version %d in %.3f s", self._name, published.version, time.perf_counter() - begun)

    async def _within(self, call: Awaitable[None], what: str) -> None:
        await within(self._settings.engine_timeout_s, call, what)

    def _start_listening(self) -> None:
        """From the first row on: heartbeats from the event loop, and sleep whenever it is asked for."""
        if self._sleeper is None:
            self._heartbeat.follow(asyncio.get_running_loop())
            self._sleeper = asyncio.ensure_future(self._sleep_when_asked())

    async def _sleep_when_asked(self) -> None:
        while self._settings.colocated:
            await self._coordinator.asked_to_sleep.remote(self._name)
            async with self._lock.write():
                try:
                    if not self._asleep:
                        await self._within(in_thread(self._engine.sleep), "falling asleep")
                        self._asleep = True
                except Exception as error:  # it has its memory still: only its end gives that back
                    await self._coordinator.report_death.remote(self._name, f"it could not be put to sleep: {error!r}")
                    self._context.exit(1)
                await self._coordinator.asleep.remote(self._name)

    async def _give_up(self, death: EngineDied) -> None:
        """Ends this process, so that Ray starts a new actor and runs its rows again; raises if too many have died."""
        deaths = await self._coordinator.report_death.remote(self._name, str(death))
        if deaths > self._settings.max_engine_deaths:
            raise RuntimeError(f"{deaths} engines died in this run; the last one: {death}") from death
        logger.error("engine %s died and is replaced (death %d in a row): %s", self._name, deaths, death)
        self._context.exit(1)
