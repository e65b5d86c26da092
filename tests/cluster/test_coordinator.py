"""Engines by their coordinator: silent ones are ended, dead ones are not waited for. No Ray, and a clock of its own."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import ray

from calibadv.cluster.coordinator import Coordinator, Intervals
from calibadv.cluster.engine_registry import EngineRegistry
from calibadv.cluster.packed import PackedWeights
from calibadv.cluster.processes import EngineProcess
from calibadv.rollout.tally import Counts
from calibadv.types import Phase

LISTEN_S = 0.002


def process(name: str, *, actor: str = "", timeout_s: float = 10.0) -> EngineProcess:
    return EngineProcess(name, actor or f"actor of {name}", "node", 1, 0.0, timeout_s)


class World:
    """A clock that is turned by hand, and processes that are ended in its books only."""

    def __init__(self, late: float = float("inf")) -> None:
        self.now_s = 0.0
        self.signals: list[tuple[str, int]] = []
        self.alive = True
        self.refuses = 0
        self.coordinator = Coordinator(lambda: self.now_s, self.send, Intervals(LISTEN_S, late, sleep_s=0.01))

    async def send(self, to: EngineProcess, number: int) -> bool:
        if self.refuses:
            self.refuses -= 1
            raise RuntimeError("no such node")
        self.signals.append((to.name, number))
        return self.alive

    async def listen(self, seconds: float) -> None:
        """The coordinator looks about once a second, in its own time."""
        for _ in range(int(seconds)):
            self.now_s += 1.0
            await asyncio.sleep(LISTEN_S * 2)

    async def register(self, *names: str) -> None:
        for name in names:
            await self.coordinator.register("stream", [None], process(name))

    async def deaths(self) -> tuple[str, ...]:
        return (await self.coordinator.engines()).deaths


@pytest.fixture
def world() -> World:
    return World()


async def test_an_engine_that_falls_silent_is_killed_and_counted_once(world: World) -> None:
    await world.register("a", "b")
    await world.coordinator.heartbeat("a")
    await world.coordinator.heartbeat("b")
    for _ in range(14):
        await world.coordinator.heartbeat("b")
        await world.listen(1)
    assert world.signals == [("a", signal.SIGKILL)]
    assert await world.deaths() == ("a: silent for 10 s",)
    await world.coordinator.heartbeat("a")  # it was in the post
    assert (await world.coordinator.engines()).silent_s == {}
    assert await world.coordinator.register("stream", [None], process("a2", actor="actor of a")) == 1
    assert len(await world.deaths()) == 1


async def test_an_engine_that_starts_may_be_silent(world: World) -> None:
    await world.register("a", "starting")
    for _ in range(30):
        await world.coordinator.heartbeat("a")
        await world.listen(1)
    assert world.signals == []
    assert (await world.coordinator.engines()).starting == ("starting",)


async def test_a_coordinator_that_stood_still_itself_accuses_nobody() -> None:
    world = World(late=3.0)
    await world.register("a")
    await world.coordinator.heartbeat("a")
    await world.listen(30)  # each look is much later than it was due
    assert world.signals == []


async def test_ending_a_silent_engine_is_tried_again(world: World) -> None:
    world.refuses = 2
    await world.register("a")
    await world.coordinator.heartbeat("a")
    await world.listen(14)
    assert world.signals == [("a", signal.SIGKILL)]


async def test_putting_engines_to_sleep_does_not_wait_for_the_dead(world: World) -> None:
    await world.register("a", "b")
    await world.coordinator.wake("a")
    sleeping = asyncio.ensure_future(world.coordinator.sleep_all())
    await asyncio.sleep(0.05)
    assert not sleeping.done()  # it lives, and has not said that it sleeps
    world.alive = False
    await asyncio.wait_for(sleeping, 5)
    assert await world.deaths() == ("a: its process ended",)


async def test_putting_engines_to_sleep_does_not_wait_for_a_node_that_is_gone(world: World) -> None:
    await world.register("a")
    await world.coordinator.wake("a")
    world.refuses = 1
    await asyncio.wait_for(world.coordinator.sleep_all(), 5)


async def test_deaths_in_a_row_begin_anew_with_each_version(world: World) -> None:
    await world.register("a", "b", "c")
    assert [await world.coordinator.report_death(name) for name in ("a", "b")] == [1, 2]
    await world.coordinator.publish(1, PackedWeights((), ()))
    assert await world.coordinator.report_death("c") == 1
    assert len(await world.deaths()) == 3


async def test_an_engine_of_a_stream_that_has_ended_is_killed_and_awaited_by_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    await world.coordinator.end("stream")
    await world.coordinator.register("stream", ["an actor"], process("late"))
    assert killed == ["an actor"]
    assert str(await world.coordinator.engines()) == "no engine is there"
    await world.coordinator.end("stream")
    assert killed == ["an actor"]


async def test_a_new_process_of_an_actor_tells_of_the_death_of_the_old_one(world: World) -> None:
    coordinator = world.coordinator
    await coordinator.register("s", [None], process("a-1", actor="a"))
    await coordinator.register("s", [None], process("b-1", actor="b"))
    await coordinator.serves("a-1", 4)
    assert await coordinator.register("s", [None], process("a-2", actor="a")) == 1
    assert await world.deaths() == ("a-1: its process ended",)
    await coordinator.report_death("a-2", "it hangs")
    assert await coordinator.register("s", [None], process("a-3", actor="a")) == 2
    assert await world.deaths() == ("a-1: its process ended", "a-2: it hangs")
    assert (await coordinator.engines()).serving == {}


def test_the_report_says_who_serves_what_and_who_is_silent() -> None:
    registry = EngineRegistry()
    assert str(registry.report(0)) == "no engine is there"
    for name in ("a", "b", "c"):
        registry.register("s", process(name))
        registry.heartbeat(name, 10.0)
    registry.register("s", process("d"))
    registry.serve("a", 6)
    registry.serve("b", 7)
    registry.serve("c", 7)
    registry.heartbeat("a", 60.0)
    registry.heartbeat("b", 60.0)
    registry.register("s", process("x"))
    registry.lose("x", "gone")
    assert str(registry.report(70.0)) == (
        "version 6 is served by a; version 7 is served by b, c; starting: d; silent: c for 60 s; "
        "engines that died so far: 1"
    )


def test_an_evaluation_moves_while_the_step_moves_that_may_go_before_it() -> None:
    async def run() -> None:
        coordinator = World().coordinator
        await coordinator.register("stream", ["actor"], process("a"))
        await coordinator.heartbeat("a", {(Phase.TRAIN, 2): Counts(3, 4, 5), (Phase.EVAL, 2): Counts(1)})
        evaluation, step = [await coordinator.progress((phase, 2)) for phase in (Phase.EVAL, Phase.TRAIN)]
        assert (evaluation.counts, evaluation.before) == (Counts(1), Counts(3, 4, 5))
        assert (step.counts, step.before) == (Counts(3, 4, 5), Counts())

    asyncio.run(run())
