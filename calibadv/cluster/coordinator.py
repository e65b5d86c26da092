"""The policy board: a small named actor where the learner publishes versions and the engines wait for them.

It also knows who of the engines is there. One that is silent for longer than its limit is ended, so that Ray starts
another; and where engines and learners share GPUs, it calls the engines to sleep and lets none wake before its time.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from calibadv.cluster.names import ray_name
from calibadv.cluster.processes import EngineProcess, signal_engine
from calibadv.cluster.roll_call import EngineReport, RollCall
from calibadv.cluster.weights import PackedWeights
from calibadv.rollout.tally import Counts, Step

logger = logging.getLogger(__name__)

LISTEN_S = 1.0  # between two looks for silent engines
STOOD_STILL = 3.0  # a look that comes later than so many of its pauses finds that nobody could be heard
LOOK_S = 10.0  # between two looks whether an engine that is asked to sleep still lives
ATTEMPTS = 3  # to end a silent process
SignalFn = Callable[[EngineProcess, int], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Published:
    """The newest policy: its version and its weights."""

    version: int
    weights: PackedWeights


@dataclass(frozen=True, slots=True)
class Done:
    """How far a step is. Two that are equal saw nothing move in between."""

    counts: Counts = field(default_factory=Counts)
    versions: tuple[tuple[str, int], ...] = ()  # that each engine last took
    learned: tuple[int, int] = (0, 0)  # micro-batches of the update under way, and of how many


class PolicyBoard:
    """Holds the newest weights' references, never the weights. Create it with `create_board`.

    Only references to the newest version are kept, so that older chunks are freed when no engine reads them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, send_signal: SignalFn = signal_engine) -> None:
        self._published: Published | None = None
        self._news = asyncio.Condition()
        self._actors: defaultdict[str, list[Any]] = defaultdict(list)
        self._ended: set[str] = set()
        self._roll = RollCall()
        self._resting = False
        self._learned = (0, 0)
        self._clock, self._signal = clock, send_signal
        self._tasks: set[asyncio.Task[None]] = set()  # else they may be collected while they run
        self._listening = False

    # ---- versions -----------------------------------------------------------------------------------------------

    async def publish(self, version: int, weights: PackedWeights) -> None:
        """Make `version` the newest and wake all who wait for it. Versions only grow."""
        if version <= self._newest():
            raise ValueError(f"version {version} is not newer than the published {self._newest()}")
        async with self._news:
            self._published = Published(version, weights)
            self._roll.in_a_row = 0
            self._resting = False
            self._learned = (0, 0)
            self._news.notify_all()

    async def wait(self, version: int) -> int:
        """The newest version, as soon as it is `version` or later."""
        async with self._news:
            await self._news.wait_for(lambda: self._newest() >= version)
        return self._newest()

    async def latest(self) -> Published | None:
        """The newest version with its weights; None before the first."""
        return self._published

    async def report(self, engine: str, version: int) -> None:
        """An engine says that it serves `version` from now on."""
        self._roll.serve(engine, version)

    async def versions(self) -> dict[str, int]:
        """The version that each engine last reported."""
        return self._roll.versions()

    # ---- engines ------------------------------------------------------------------------------------------------

    async def enlist(self, stream: str, actor: list[Any], process: EngineProcess) -> int:
        """Note that `actor` (in a list, lest Ray resolves it) works for `stream`, ends with it, and lives in `process`.

        How many engines have died since the newest version was published.
        """
        if stream in self._ended:
            ray.kill(actor[0])
        self._actors[stream].append(actor[0])
        await self._change(lambda: self._roll.join(stream, process))
        return self._roll.in_a_row

    async def end(self, stream: str) -> None:
        """End the actors of `stream`. Left to Ray's garbage collection they stay while a task waits for a version."""
        self._ended.add(stream)
        await self._change(lambda: self._roll.leave(stream))
        for actor in self._actors.pop(stream, []):
            ray.kill(actor)

    async def end_all(self) -> None:
        """End the actors of every stream that is still open, so that whoever reads it gets an error at once."""
        for stream in list(self._actors):
            await self.end(stream)

    async def beat(self, engine: str, counts: Mapping[Step, Counts] | None = None) -> None:
        """An engine is up and moves, and has done so much. From its first beat on, its silence is noticed."""
        self._roll.beat(engine, self._clock(), counts)
        if not self._listening:
            self._listening = True
            self._start(self._listen())

    async def report_death(self, engine: str, words: str = "it died") -> int:
        """An engine died and its actor is about to be replaced; how many did since the newest version."""
        await self._change(lambda: self._roll.lose(engine, words))
        return self._roll.in_a_row

    async def deaths(self) -> list[str]:
        """What was said of each engine that has died so far, in order."""
        return list(self._roll.deaths)

    async def engines(self) -> EngineReport:
        """Who is there, for people who wait."""
        return self._roll.report(self._clock())

    async def done(self, step: Step) -> Done:
        """How far rollouts and update of a step are, for people who wait."""
        return Done(self._roll.counts(step), tuple(sorted(self._roll.versions().items())), self._learned)

    async def learned(self, micro_batches: int, of: int) -> None:
        """A learner says how far its update is."""
        self._learned = (micro_batches, of)

    async def _listen(self) -> None:
        while True:
            before_s = self._clock()
            await asyncio.sleep(LISTEN_S)
            if self._clock() - before_s > STOOD_STILL * LISTEN_S:  # beats were sent meanwhile, and wait to be heard
                self._roll.excuse(self._clock())
            for process in self._roll.silent(self._clock()):
                await self._change(partial(self._roll.lose, process.name, f"silent for {process.timeout_s:g} s"))
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

    # ---- sleep of colocated engines --------------------------------------------------------------------------------

    async def rest(self) -> None:
        """Call every engine to sleep, and return when none holds its memory; none wakes before `rouse` or `publish`.

        An engine that has died meanwhile is not waited for.
        """
        await self._set_resting(True)
        while True:
            try:
                await asyncio.wait_for(self._until(lambda: not self._roll.awake()), LOOK_S)
            except TimeoutError:
                for process in self._roll.awake():
                    if not await self._lives(process):
                        await self._change(partial(self._roll.lose, process.name, "its process ended"))
            else:
                return

    async def rouse(self) -> None:
        """Engines may wake again."""
        await self._set_resting(False)

    async def called_to_rest(self, engine: str) -> None:
        """Returns when the engine is to sleep and does not."""
        await self._until(lambda: self._resting and self._roll.is_awake(engine))

    async def wake(self, engine: str) -> None:
        """Returns when the engine may take its memory; from here on `rest` waits until it has given it back."""
        async with self._news:
            await self._news.wait_for(lambda: not self._resting)
            self._roll.wake(engine)

    async def sleeps(self, engine: str) -> None:
        """The engine has given its memory back."""
        await self._change(lambda: self._roll.sleep(engine))

    async def settled(self, engines: int) -> None:
        """Returns when so many engines have started and sleep."""
        await self._until(lambda: self._roll.settled() >= engines)

    async def _lives(self, process: EngineProcess) -> bool:
        try:
            return await self._signal(process, 0)
        except Exception:  # its node cannot be asked
            return False

    async def _set_resting(self, resting: bool) -> None:
        async with self._news:
            self._resting = resting
            self._news.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(condition)

    async def _change(self, change: Callable[[], None]) -> None:
        async with self._news:
            change()
            self._news.notify_all()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _newest(self) -> int:
        return -1 if self._published is None else self._published.version


def create_board(name: str) -> Any:
    """A handle of a new board. It lives as long as its handle here; others find it with `find_board`."""
    # On the driver's own node: an actor that asks for nothing may be put anywhere, and a lost spot node ends it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {
        "name": ray_name(name),
        "num_cpus": 0,
        "max_concurrency": 100_000,  # every waiting rollout is a pending call
        "scheduling_strategy": here,
    }
    return ray.remote(PolicyBoard).options(**options).remote()


def find_board(name: str) -> Any:
    """A handle of the board called `name`. Raises ValueError if there is none."""
    try:
        return ray.get_actor(ray_name(name))
    except ValueError as error:
        raise ValueError(
            f"no policy board named {name!r}: create it with create_board before rollouts start"
        ) from error
