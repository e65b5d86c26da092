"""The coordinator: one small named actor through which learner and engines of a run find each other.

It holds the published policy, the registry of engines, and the turns that engines and learners take on shared GPUs. An
engine that is silent for longer than its limit is ended, so that Ray starts another.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from calibadv.cluster.engine_registry import EngineRegistry, EngineReport
from calibadv.cluster.names import ray_name
from calibadv.cluster.packed import PackedWeights
from calibadv.cluster.policy_store import PolicyStore, Published
from calibadv.cluster.processes import EngineProcess, signal_engine
from calibadv.cluster.sleep_control import SleepControl
from calibadv.rollout.tally import Counts, Step
from calibadv.types import Phase

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # to end a silent process
SignalFn = Callable[[EngineProcess, int], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far a step is. Two that are equal saw nothing move in between."""

    counts: Counts = field(default_factory=Counts)
    before: Counts = field(default_factory=Counts)  # an evaluation's: of the training step that may go before it
    versions: tuple[tuple[str, int], ...] = ()  # that each engine last took
    update: tuple[int, int] = (0, 0)  # micro-batches of the update under way, and of how many


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often the coordinator looks."""

    silence_s: float = 1.0  # between two looks for silent engines
    late: float = 3.0  # a look that comes later than so many of its pauses finds that nobody could be heard
    sleep_s: float = 10.0  # between two looks whether an engine that is asked to sleep still lives


class Coordinator:
    """Its methods are called from other processes. Create it with `create_coordinator`."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        send_signal: SignalFn = signal_engine,
        every: Intervals = Intervals(),
    ) -> None:
        self._policy, self._registry, self._sleep = PolicyStore(), EngineRegistry(), SleepControl()
        self._update = (0, 0)
        self._actors: defaultdict[str, list[Any]] = defaultdict(list)  # by stream
        self._ended: set[str] = set()  # streams
        self._clock, self._signal, self._every = clock, send_signal, every
        self._tasks: set[asyncio.Task[None]] = set()  # else they may be collected while they run
        self._listening = False

    # ---- the policy ------------------------------------------------------------------------------------------------

    async def publish(self, version: int, weights: PackedWeights) -> None:
        """Makes `version` the newest, for which engines may wake. Versions only grow."""
        await self._policy.publish(version, weights)
        self._registry.deaths_in_a_row = 0
        self._update = (0, 0)
        await self._sleep.allow()

    async def wait(self, version: int) -> int:
        """The newest version, as soon as it is `version` or later."""
        return await self._policy.wait(version)

    async def latest(self) -> Published | None:
        """The newest version with its weights; None before the first."""
        return self._policy.latest

    # ---- engines ---------------------------------------------------------------------------------------------------

    async def register(self, stream: str, actor: list[Any], process: EngineProcess) -> int:
        """Notes that `actor` (in a list, lest Ray resolves it) lives in `process`, works for `stream` and ends with it.

        How many engines have died since the newest version was published. Of a stream that has ended, it ends here.
        """
        if stream in self._ended:
            ray.kill(actor[0])
            return self._registry.deaths_in_a_row
        self._actors[stream].append(actor[0])
        for name in self._registry.replaced_by(process):
            await self._lose(name, "its process ended")
        self._registry.register(stream, process)
        await self._sleep.add(process.name)
        return self._registry.deaths_in_a_row

    async def end(self, stream: str) -> None:
        """Ends the actors of `stream`. Left to Ray's garbage collection they stay while a task waits for a version."""
        self._ended.add(stream)
        for name in self._registry.end(stream):
            await self._sleep.remove(name)
        for actor in self._actors.pop(stream, []):
            ray.kill(actor)

    async def end_all(self) -> None:
        """Ends the actors of every stream that is still open, so that whoever reads it gets an error at once."""
        for stream in list(self._actors):
            await self.end(stream)

    async def heartbeat(self, engine: str, counts: Mapping[Step, Counts] | None = None) -> None:
        """An engine is up and moves, and has done so much. From its first heartbeat on, its silence is noticed."""
        self._registry.heartbeat(engine, self._clock(), counts)
        if not self._listening:
            self._listening = True
            self._start(self._listen())

    async def serves(self, engine: str, version: int) -> None:
        """An engine serves `version` from now on."""
        self._registry.serve(engine, version)

    async def report_death(self, engine: str, words: str = "it died") -> int:
        """An engine died and its actor is about to be replaced; how many did since the newest version."""
        await self._lose(engine, words)
        return self._registry.deaths_in_a_row

    async def report_update(self, micro_batches: int, of: int) -> None:
        """A learner says how far its update is."""
        self._update = (micro_batches, of)

    async def engines(self) -> EngineReport:
        """Who is there, and who has died."""
        return self._registry.report(self._clock(), self._sleep.awake())

    async def progress(self, step: Step) -> StepProgress:
        """How far rollouts and update of a step are, for people who wait."""
        serving = self._registry.report(self._clock()).serving
        before = self._registry.counts((Phase.TRAIN, step[1])) if step[0] is Phase.EVAL else Counts()
        return StepProgress(self._registry.counts(step), before, tuple(sorted(serving.items())), self._update)

    # ---- sleep of colocated engines --------------------------------------------------------------------------------

    async def sleep_all(self) -> None:
        """Asks every engine to sleep, and returns when none holds its memory.

        None wakes before `wake_all` or `publish`. An engine that has died meanwhile is not waited for.
        """
        await self._sleep.ask()
        while True:
            try:
                return await asyncio.wait_for(self._sleep.all_asleep(), self._every.sleep_s)
            except TimeoutError:
                for process in self._registry.processes(self._sleep.awake()):
                    if not await self._lives(process):
                        await self._lose(process.name, "its process ended")

    async def wake_all(self) -> None:
        """Engines may wake again."""
        await self._sleep.allow()

    async def asked_to_sleep(self, engine: str) -> None:
        """Returns when the engine is to sleep and does not."""
        await self._sleep.asked(engine)

    async def wake(self, engine: str) -> None:
        """Returns when the engine may take its memory; from here on `sleep_all` waits until it has given it back."""
        await self._sleep.wake(engine)

    async def asleep(self, engine: str) -> None:
        """The engine has given its memory back."""
        await self._sleep.asleep(engine)

    async def started(self, engines: int) -> None:
        """Returns when so many engines have started and sleep."""
        await self._sleep.started(engines)

    # ----------------------------------------------------------------------------------------------------------------

    async def _lose(self, name: str, words: str) -> None:
        self._registry.lose(name, words)
        await self._sleep.remove(name)

    async def _listen(self) -> None:
        while True:
            before_s = self._clock()
            await asyncio.sleep(self._every.silence_s)
            if self._clock() - before_s > self._every.late * self._every.silence_s:
                self._registry.restart_silence(self._clock())  # heartbeats were sent meanwhile, and wait to be heard
            for process in self._registry.silent(self._clock()):
                await self._lose(process.name, f"silent for {process.timeout_s:g} s")
                self._start(self._end_silent(process))

    async def _end_silent(self, process: EngineProcess) -> None:
        """SIGKILL: `ray.kill` waits for an answer that a stopped process does not give."""
        logger.error("engine %s was silent for %g s and is ended", process.name, process.timeout_s)
        for _ in range(ATTEMPTS):
            try:
                await self._signal(process, signal.SIGKILL)
                return
            except Exception as error:  # its node is gone, and the engine with it, or has no room for a task
                logger.warning("engine %s could not be ended: %s", process.name, error)

    async def _lives(self, process: EngineProcess) -> bool:
        try:
            return await self._signal(process, 0)
        except Exception:  # its node cannot be asked
            return False

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def create_coordinator(name: str) -> Any:
    """A handle of a new coordinator. It lives as long as its handle here; others find it with `find_coordinator`."""
    # On the driver's own node: an actor that asks for nothing may be put anywhere, and a lost spot node ends it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {
        "name": ray_name(name),
        "num_cpus": 0,
        "max_concurrency": 100_000,  # every waiting rollout is a pending call
        "scheduling_strategy": here,
    }
    return ray.remote(Coordinator).options(**options).remote()


def find_coordinator(name: str) -> Any:
    """A handle of the coordinator called `name`. Raises ValueError if there is none."""
    try:
        return ray.get_actor(ray_name(name))
    except ValueError as error:
        raise ValueError(
            f"no coordinator named {name!r}: create it with create_coordinator before rollouts start"
        ) from error
