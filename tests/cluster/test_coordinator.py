"""The board's ear for engines: silent ones are ended, dead ones are not waited for. No Ray, and a clock of its own."""

from __future__ import annotations

import asyncio
import signal

import pytest

from calibadv.cluster import board as board_module
from calibadv.cluster.board import PolicyBoard
from calibadv.cluster.processes import EngineProcess
from calibadv.cluster.roll_call import RollCall


def process(name: str, *, actor: str = "", timeout_s: float = 10.0) -> EngineProcess:
    return EngineProcess(name, actor or f"actor of {name}", "node", 1, 0.0, timeout_s)


class World:
    """A clock that is turned by hand, and processes that are ended in its books only."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.signals: list[tuple[str, int]] = []
        self.alive = True
        self.refuses = 0
        self.board = PolicyBoard(lambda: self.now_s, self.send)

    async def send(self, to: EngineProcess, number: int) -> bool:
        if self.refuses:
            self.refuses -= 1
            raise RuntimeError("no such node")
        self.signals.append((to.name, number))
        return self.alive

    async def listen(self, seconds: float) -> None:
        """The board looks about once a second, in its own time."""
        for _ in range(int(seconds)):
            self.now_s += 1.0
            await asyncio.sleep(board_module.LISTEN_S * 2)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(board_module, "LISTEN_S", 0.002)
    return World()


async def enlist(world: World, *names: str) -> None:
    for name in names:
        await world.board.enlist("stream", [None], process(name))


async def test_an_engine_that_falls_silent_is_killed_and_counted_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "STOOD_STILL", float("inf"))
    await enlist(world, "a", "b")
    await world.board.beat("a")
    await world.board.beat("b")
    for _ in range(14):
        await world.board.beat("b")
        await world.listen(1)
    assert world.signals == [("a", signal.SIGKILL)]
    assert await world.board.deaths() == ["a: silent for 10 s"]
    await world.board.beat("a")  # it was in the post
    assert (await world.board.engines()).silent_s == {}
    assert await world.board.enlist("stream", [None], process("a2", actor="actor of a")) == 1
    assert len(await world.board.deaths()) == 1


async def test_an_engine_that_starts_may_be_silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "STOOD_STILL", float("inf"))
    await enlist(world, "a", "starting")
    for _ in range(30):
        await world.board.beat("a")
        await world.listen(1)
    assert world.signals == []
    assert (await world.board.engines()).starting == ("starting",)


async def test_a_board_that_stood_still_itself_accuses_nobody(world: World) -> None:
    await enlist(world, "a")
    await world.board.beat("a")
    await world.listen(30)  # each look is much later than it was due
    assert world.signals == []


async def test_ending_a_silent_engine_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "STOOD_STILL", float("inf"))
    world.refuses = 2
    await enlist(world, "a")
    await world.board.beat("a")
    await world.listen(14)
    assert world.signals == [("a", signal.SIGKILL)]


async def test_rest_does_not_wait_for_the_dead(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "LOOK_S", 0.01)
    await enlist(world, "a", "b")
    await world.board.wake("a")
    resting = asyncio.ensure_future(world.board.rest())
    await asyncio.sleep(0.05)
    assert not resting.done()  # it lives, and has not said that it sleeps
    world.alive = False
    await asyncio.wait_for(resting, 5)
    assert await world.board.deaths() == ["a: its process ended"]


async def test_rest_does_not_wait_for_a_node_that_is_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "LOOK_S", 0.01)
    await enlist(world, "a")
    await world.board.wake("a")
    world.refuses = 1
    await asyncio.wait_for(world.board.rest(), 5)


def test_a_new_process_of_an_actor_tells_of_the_death_of_the_old_one() -> None:
    roll = RollCall()
    roll.join("s", process("a-1", actor="a"))
    roll.join("s", process("b-1", actor="b"))
    roll.serve("a-1", 4)
    roll.join("s", process("a-2", actor="a"))
    assert roll.deaths == ["a-1: its process ended"]
    roll.lose("a-2", "it hangs")
    roll.join("s", process("a-3", actor="a"))
    assert roll.deaths == ["a-1: its process ended", "a-2: it hangs"]
    assert (roll.in_a_row, roll.versions()) == (2, {})


def test_the_report_says_who_serves_what_and_who_is_silent() -> None:
    roll = RollCall()
    assert str(roll.report(0)) == "no engine is there"
    for name in ("a", "b", "c"):
        roll.join("s", process(name))
        roll.beat(name, 10.0)
    roll.join("s", process("d"))
    roll.serve("a", 6)
    roll.serve("b", 7)
    roll.serve("c", 7)
    roll.beat("a", 60.0)
    roll.beat("b", 60.0)
    roll.lose("x", "gone")
    assert str(roll.report(70.0)) == (
        "version 6 is served by a; version 7 is served by b, c; starting: d; silent: c for 60 s; "
        "engines that died so far: 1"
    )
