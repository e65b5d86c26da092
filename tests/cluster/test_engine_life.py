"""Engines that hang, keep to their versions, and take turns with learners: workers and coordinator in one process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from calibadv.cluster.engine_timeout import LastAnswer, TimedGenerate
from calibadv.cluster.rollout_worker import RollGroupFn, RolloutWorker, WorkerSettings
from calibadv.cluster.rows import RolloutRow
from calibadv.rollout.protocols import EngineDied, GenerateFn, Generation, Sampling, StopReason, ToolFailed
from calibadv.rollout.tools import FunctionTool, ToolConfig
from tests.cluster.fake_engine import FakeEngine, rollouts, row
from tests.cluster.local_worker import Exited, LocalCoordinator, Workers

Make = Callable[..., Awaitable[RolloutWorker]]


@pytest.fixture
async def coordinator() -> LocalCoordinator:
    return LocalCoordinator()


@pytest.fixture
def make(coordinator: LocalCoordinator) -> Make:
    """Starts an engine in a worker of its own."""
    workers = Workers(coordinator)

    async def started(engine: FakeEngine, rollout: RollGroupFn | None = None, **settings: Any) -> RolloutWorker:
        rolled = partial(_same, rollout) if rollout is not None else rollouts
        return await workers.make(WorkerSettings(lambda: engine, rolled, "coordinator", **settings))

    return started


def _same(rollout: RollGroupFn) -> RollGroupFn:
    return rollout


async def settle() -> None:
    """Lets everything happen that waits for nothing but its turn."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


# ---- an engine's start --------------------------------------------------------------------------------------------


async def test_an_engine_takes_the_names_of_what_will_be_published_at_its_start(make: Make) -> None:
    engine = FakeEngine()
    await make(engine, placeholder_weights=lambda: [("weight", torch.zeros(()))])
    assert engine.events == ["load -1"]  # before anything is published, as the version that it is


async def test_names_that_an_engine_does_not_take_end_its_start(make: Make) -> None:
    with pytest.raises(KeyError, match="weight"):
        await make(FakeEngine(), placeholder_weights=lambda: [("another", torch.zeros(()))])


async def test_a_worker_with_its_own_weights_awaits_and_takes_none(make: Make) -> None:
    engine = FakeEngine()
    worker = await make(engine, weights="own")
    finished = await worker.roll(row(0, 3, version=0))
    assert (finished.index, finished.rolled["version"], finished.rolled["weights"]) == (3, 0, [-1, -1, -1])
    assert engine.events == []
    with pytest.raises(AssertionError, match="needs version 1, the engine serves 0"):
        await worker.roll(row(1))


# ---- an engine that hangs -----------------------------------------------------------------------------------------


async def test_a_generation_that_never_comes_back_is_the_engines_death(
    make: Make, coordinator: LocalCoordinator
) -> None:
    await coordinator.publish_number(0)
    worker = await make(FakeEngine(hangs_on=7), engine_timeout_s=0.05)
    with pytest.raises(Exited):
        await worker.roll(row(0, 7))
    assert await coordinator.deaths() == ("e1: it hangs: no request was answered for 0.05 s",)


async def test_an_engine_that_dies_under_many_rows_dies_once(make: Make, coordinator: LocalCoordinator) -> None:
    await coordinator.publish_number(0)
    worker = await make(FakeEngine(dies_on=0), max_engine_deaths=1)
    ends = await asyncio.gather(*(worker.roll(row(0, i)) for i in range(12)), return_exceptions=True)
    assert [type(end) for end in ends] == [Exited] * 12
    assert await coordinator.deaths() == ("e1: as asked",)


async def test_what_a_rollout_makes_of_a_hang_is_never_its_result(make: Make, coordinator: LocalCoordinator) -> None:
    async def forgiving(given: RolloutRow, generate: GenerateFn, _: int) -> Any:
        try:
            await generate(np.array([given.index]), Sampling(4))
        except EngineDied:
            return "an answer made of nothing"
        return "an answer"

    await coordinator.publish_number(0)
    worker = await make(FakeEngine(hangs_on=7), forgiving, engine_timeout_s=0.05)
    assert (await worker.roll(row(0, 1))).rolled == "an answer"
    with pytest.raises(Exited):
        await worker.roll(row(0, 7))


async def test_weights_that_never_arrive_in_an_engine_are_its_death(make: Make, coordinator: LocalCoordinator) -> None:
    class Stuck(FakeEngine):
        def load_weights(self, *_: Any) -> None:
            raise EngineDied("stuck")

    await coordinator.publish_number(0)
    worker = await make(Stuck())
    with pytest.raises(Exited):
        await worker.roll(row(0))
    assert await coordinator.deaths() == ("e1: stuck",)


async def test_tools_that_hang_do_not_keep_an_engine_from_its_weights(
    make: Make, coordinator: LocalCoordinator
) -> None:
    worker = await make(FakeEngine(), engine_timeout_s=5.0)
    released = threading.Event()

    def hang(x: int) -> int:
        """Never answers."""
        released.wait(60)
        return x

    stuck = FunctionTool(ToolConfig(function="m:hang", timeout_s=0.01, retries=0), hang)
    failed = await asyncio.gather(*(stuck({"x": x}) for x in range(40)), return_exceptions=True)
    assert {type(each) for each in failed} == {ToolFailed}
    await coordinator.publish_number(0)
    assert (await worker.roll(row(0))).rolled["version"] == 0
    released.set()


async def test_a_request_in_a_long_queue_does_not_hang_while_others_are_answered() -> None:
    gates = [asyncio.Event() for _ in range(4)]

    async def in_order(prompt_ids: Any, _: Sampling) -> Generation:
        await gates[int(prompt_ids[0])].wait()
        return Generation(np.zeros(1, np.int64), np.zeros(1, np.float32), StopReason.EOS)

    last_answer = LastAnswer()
    watched = TimedGenerate(in_order, 0.4, last_answer)
    waiting = [asyncio.ensure_future(watched(np.array([n]), Sampling(1))) for n in range(4)]
    for gate in gates:  # each within the limit, all together beyond it
        await asyncio.sleep(0.2)
        gate.set()
    assert len(await asyncio.gather(*waiting)) == 4
    assert watched.death is None


async def test_a_cancelled_rollout_takes_its_request_out_of_the_engine() -> None:
    cancelled = asyncio.Event()

    async def endless(*_: Any) -> Generation:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    task = asyncio.ensure_future(TimedGenerate(endless, 60, LastAnswer())(np.array([0]), Sampling(1)))
    await settle()
    task.cancel()
    await settle()
    assert cancelled.is_set()


# ---- staleness ----------------------------------------------------------------------------------------------------


async def test_rows_that_wait_for_the_same_weights_are_rolled_out_side_by_side(
    make: Make, coordinator: LocalCoordinator
) -> None:
    """Whichever of them took the weights: the others waited for that alone, not for its rollout."""
    rolling, all_roll = [], asyncio.Event()

    async def roll(row: RolloutRow, generate: GenerateFn, version: int) -> Any:  # noqa: ARG001
        rolling.append(row.index)
        if len(rolling) == 4:
            all_roll.set()
        await asyncio.wait_for(all_roll.wait(), 10)
        return None

    engine = FakeEngine()
    worker = await make(engine, rollout=roll)
    await coordinator.publish_number(0)
    await asyncio.gather(*(worker.roll(row(0, i)) for i in range(4)))
    assert sorted(rolling) == [0, 1, 2, 3]
    assert engine.events == ["load 0"]


@pytest.mark.parametrize("max_staleness", [0, 1])
async def test_only_with_staleness_one_a_row_starts_before_its_version(
    make: Make, coordinator: LocalCoordinator, max_staleness: int
) -> None:
    events = asyncio.Queue[str]()

    async def noted(given: RolloutRow, generate: GenerateFn, version: int) -> Any:
        events.put_nowait(f"row {given.step} by {version}")
        await generate(np.array([given.index]), Sampling(4))

    worker = await make(FakeEngine(seconds=0), noted, max_staleness=max_staleness)
    running = [asyncio.ensure_future(worker.roll(row(step))) for step in (0, 1, 2)]
    wanted = {
        0: [[], ["row 0 by 0"], ["row 1 by 1"]],
        1: [[], ["row 0 by 0", "row 1 by 0"], ["row 2 by 1"]],
    }
    for version, begun in zip((None, 0, 1), wanted[max_staleness], strict=True):
        if version is not None:
            await coordinator.publish_number(version)
        # Weights are loaded in a thread, whose turn nobody knows.
        assert sorted([await asyncio.wait_for(events.get(), 60) for _ in begun]) == begun
        await settle()
        assert events.empty()
    for task in running:
        task.cancel()


class LiveFake(FakeEngine):
    """Takes weights while requests run."""

    def exchange_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        self.events.append(f"exchange {version}")
        self.weight, self.version = int(dict(named_tensors)["weight"].item()), version


async def test_rollouts_that_are_kept_go_on_with_new_weights_and_say_so(
    make: Make, coordinator: LocalCoordinator
) -> None:
    """Row 0 runs from before version 1 until row 2 has been rolled out by it: an engine that drains would wait."""
    first_has_begun, last_is_done, sampled = asyncio.Event(), asyncio.Event(), {}

    async def roll(given: RolloutRow, generate: GenerateFn, version: int) -> Any:
        weights = [int((await generate(np.array([given.step]), Sampling(4))).ids[0])]
        if given.step == 0:
            first_has_begun.set()
            await asyncio.wait_for(last_is_done.wait(), 60)
        weights += [int((await generate(np.array([given.step]), Sampling(4))).ids[0])]
        sampled[given.step] = (version, weights)

    engine = LiveFake(seconds=0)
    worker = await make(engine, roll, max_staleness=1, keep_rollouts=True)
    await coordinator.publish_number(0)
    first = asyncio.ensure_future(worker.roll(row(0)))
    await asyncio.wait_for(first_has_begun.wait(), 60)
    await coordinator.publish_number(1)
    second = await worker.roll(row(2))
    last_is_done.set()
    assert ((await first).mixed, second.mixed) == (True, False)
    assert sampled == {0: (0, [0, 1]), 2: (1, [1, 1])}
    assert engine.events == ["load 0", "exchange 1"]


# ---- engines and learners take turns ------------------------------------------------------------------------------


async def test_engines_sleep_while_the_learner_learns_and_wake_for_the_next_version(
    make: Make, coordinator: LocalCoordinator
) -> None:
    events: list[str] = []
    engines = [FakeEngine(events=events), FakeEngine(events=events)]
    workers = [await make(engine, colocated=True) for engine in engines]
    await coordinator.actor.started(2)
    assert not any(engine.awake for engine in engines)  # before there is a learner
    await coordinator.publish_number(0)
    done = await asyncio.gather(*(worker.roll(row(0, i)) for i, worker in enumerate(workers)))
    assert sorted(events) == ["load 0"] * 2 + ["sleep"] * 2 + ["wake"] * 2
    for version in range(3):
        events.clear()
        ahead = [asyncio.ensure_future(worker.roll(row(version + 1, i))) for i, worker in enumerate(workers)]
        await coordinator.actor.sleep_all()
        events.append("learn")
        await settle()
        assert not any(engine.awake for engine in engines)
        events.append("publish")
        await coordinator.publish_number(version + 1)
        done = await asyncio.gather(*ahead)
        assert events[:4] == ["sleep", "sleep", "learn", "publish"]
        assert sorted(events[4:]) == [f"load {version + 1}"] * 2 + ["wake"] * 2
        assert [r.rolled["version"] for r in done] == [version + 1] * 2
        assert all(r.rolled["weights"] == [version + 1] * 3 for r in done)


async def test_an_engine_that_wakes_for_the_version_that_it_had_loads_it_again(
    make: Make, coordinator: LocalCoordinator
) -> None:
    events: list[str] = []
    engine = FakeEngine(events=events)
    worker = await make(engine, colocated=True)
    await coordinator.publish_number(0)
    await worker.roll(row(0))
    await coordinator.actor.sleep_all()
    engine.weight = -1  # what was on the GPU is gone
    await coordinator.actor.wake_all()
    assert (await worker.roll(row(0, 1))).rolled["weights"] == [0, 0, 0]
    assert events == ["sleep", "wake", "load 0", "sleep", "wake", "load 0"]


async def test_a_row_that_comes_while_engines_sleep_waits_until_they_may_wake(
    make: Make, coordinator: LocalCoordinator
) -> None:
    engine = FakeEngine()
    worker = await make(engine, colocated=True)
    await coordinator.publish_number(0)
    await worker.roll(row(0))
    await coordinator.actor.sleep_all()
    again = asyncio.ensure_future(worker.roll(row(0, 1)))
    await settle()
    assert (engine.awake, again.done()) == (False, False)
    await coordinator.actor.wake_all()
    assert (await again).rolled["version"] == 0


async def test_going_to_sleep_lets_running_rollouts_finish(make: Make, coordinator: LocalCoordinator) -> None:
    engine = FakeEngine(seconds=0.2)
    worker = await make(engine, colocated=True)
    await coordinator.publish_number(0)
    running = asyncio.ensure_future(worker.roll(row(0)))
    await settle()
    assert not running.done()
    await coordinator.actor.sleep_all()
    assert running.done()
    assert not engine.awake


async def test_an_engine_that_is_started_again_while_others_sleep_takes_no_memory(
    make: Make, coordinator: LocalCoordinator
) -> None:
    await coordinator.publish_number(0)
    await coordinator.actor.sleep_all()
    starting = asyncio.ensure_future(make(FakeEngine(), colocated=True))
    await asyncio.sleep(0.05)
    assert not starting.done()
    await coordinator.publish_number(1)
    worker = await starting
    assert (await worker.roll(row(1))).rolled["version"] == 1


async def test_an_engine_that_cannot_sleep_is_ended(make: Make, coordinator: LocalCoordinator) -> None:
    class Sleepless(FakeEngine):
        def sleep(self) -> None:
            if self.version >= 0:
                raise RuntimeError("out of memory")

    worker = await make(Sleepless(), colocated=True)
    await coordinator.publish_number(0)
    await worker.roll(row(0))
    await coordinator.actor.sleep_all()
    assert await coordinator.deaths() == ("e1: it could not be put to sleep: RuntimeError('out of memory')",)
    assert worker._sleeper is not None
    with pytest.raises(Exited):
        await worker._sleeper
