"""What benchmarks count and simulate, by hand; nothing is measured."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.credit import step
from benchmarks.lines import least_of
from benchmarks.packing import distinct
from benchmarks.peers.environment import environment
from benchmarks.peers.lockstep import Meeting
from benchmarks.simulated_clock import SimulatedClock, simulated
from benchmarks.trl import lines_of


def test_cases_take_turns_and_the_least_of_each_counts() -> None:
    order: list[str] = []
    times = iter([0, 5, 5, 6, 6, 9, 9, 11])
    least = least_of(2, [lambda: order.append("a"), lambda: order.append("b")], lambda: next(times))
    assert (order, least) == (["a", "b", "a", "b"], [3, 1])


def test_tokens_with_a_common_beginning_are_counted_once() -> None:
    assert distinct([np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([1, 2]), np.array([5])]) == 5


def test_a_made_up_step_is_the_same_each_time() -> None:
    first, second = step(3, questions=2), step(3, questions=2)
    assert [t.turns[0].text for g in first for t in g.trajectories] == [
        t.turns[0].text for g in second for t in g.trajectories
    ]


def test_waiting_for_a_timer_takes_no_time_but_is_counted() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(asyncio.sleep(1000), asyncio.sleep(3000))
        return loop.time() - begun

    assert simulated(wait()) == pytest.approx(3000, abs=5)


def test_an_answer_of_another_thread_is_waited_for_before_a_timer() -> None:
    async def both() -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedClock)
        loop.working += 1
        done, _ = await asyncio.wait(
            [
                asyncio.ensure_future(asyncio.to_thread(lambda: "answer")),
                asyncio.ensure_future(asyncio.sleep(60, "timer")),
            ],
            return_when=asyncio.FIRST_COMPLETED,
        )
        loop.working -= 1
        return "".join(task.result() for task in done)

    assert simulated(both()) == "answer"


async def test_rollouts_in_step_wait_for_each_other_and_not_for_those_that_left() -> None:
    meeting, order = Meeting(3), []

    async def rollout(name: str, calls: int) -> None:
        for call in range(calls):
            await meeting.arrive()
            order.append(f"{name}{call}")
        meeting.leave()

    await asyncio.gather(rollout("a", 1), rollout("b", 2), rollout("c", 3))
    assert [sorted(part) for part in (order[:3], order[3:5], order[5:])] == [["a0", "b0", "c0"], ["b1", "c1"], ["c2"]]


def test_speed_and_memory_against_a_peer_are_two_lines() -> None:
    speed, memory = lines_of("pocket", 1000, {"ours": 2.0, "theirs": 8.0}, {"ours": 1e8, "theirs": 2e8})
    assert (speed.measured, speed.met) == ("4.00 x (500 and 125 action tokens a CPU second)", True)
    assert (memory.measured, memory.met) == ("0.50 x (100 and 200 MB over the loaded model)", False)


def test_a_peers_environment_is_fetched_once_and_comes_before_ours(tmp_path: Path) -> None:
    (tmp_path / "peer").mkdir()
    variables = environment("peer", ["never-fetched"], tmp_path)
    assert variables["PYTHONPATH"].startswith(f"{tmp_path / 'peer'}")
    with pytest.raises(subprocess.CalledProcessError):
        environment("other", ["--no-such-option"], tmp_path)
