"""A question before engines of which some are lost. Nothing of Ray is started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from calibadv.rollout.protocols import Answered, EngineDied, Said, Sampled
from calibadv.types import TurnKind
from serve.agent.application import PAUSES_S, Engines
from serve.agent.news import Accepted, Asked, Interrupted
from tests.build import trajectory

LOST, WHOLE = ActorDiedError(), trajectory(1.0, [2])


def raised_there(error: Exception) -> RayError:
    """What Ray makes of an error that a replica raises."""
    there: RayError = RayTaskError("roll", "traceback", error).as_instanceof_cause()
    return there


class Answer:
    """What a replica says, an error where it is lost."""

    def __init__(self, news: Sequence[Any]) -> None:
        self._news, self.cancelled = news, False

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        for one in self._news:
            if isinstance(one, RayError):
                raise one
            yield (one,)

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A deployment whose replicas answer one after the other."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        self.answers = [Answer(news) for news in answers]
        self._next = iter(self.answers)
        self.roll, self.probes = self, 0

    @property
    def ready(self) -> Any:
        return SimpleNamespace(remote=self._ready)

    async def _ready(self) -> None:
        self.probes += 1

    def options(self, *, stream: bool) -> Handle:
        assert stream
        return self

    def remote(self, _asked: Asked) -> Answer:
        return next(self._next)


async def heard(handle: Any, waited: list[float]) -> list[Any]:
    async def pause(seconds: float) -> None:
        waited.append(seconds)

    return [one async for one in Engines(handle, pause).news(Asked("Where was Ada born?"))]


async def test_a_question_waits_for_another_engine_and_is_accepted_once() -> None:
    handle = Handle([LOST], [Accepted(3), LOST], [Accepted(3), WHOLE])
    waited: list[float] = []
    assert await heard(handle, waited) == [Accepted(3), WHOLE]
    assert waited == list(PAUSES_S[:3])
    assert all(answer.cancelled for answer in handle.answers)


async def test_an_engine_that_is_lost_after_it_spoke_is_said_at_once() -> None:
    with pytest.raises(Interrupted, match="was lost while it answered"):
        await heard(Handle([Accepted(3), WHOLE, LOST], [Accepted(3), WHOLE]), waited := [])
    assert waited == [0.0]


async def test_a_question_is_given_up_when_the_pauses_are_over() -> None:
    with pytest.raises(Interrupted, match="the engine was lost 6 times before it answered"):
        await heard(Handle(*[[LOST]] * len(PAUSES_S)), waited := [])
    assert sum(waited) >= 15  # three health checks of five seconds


async def test_an_engine_that_died_in_a_living_process_is_lost_and_a_mistake_is_raised_at_once() -> None:
    assert await heard(Handle([raised_there(EngineDied("it hangs"))], [WHOLE]), []) == [WHOLE]
    with pytest.raises(ZeroDivisionError):
        await heard(Handle([Accepted(3), raised_there(ZeroDivisionError())], [WHOLE]), waited := [])
    assert waited == [0.0]


async def test_readiness_stands_in_no_queue_while_rollouts_prove_engine_and_search() -> None:
    now = [100.0]
    searched = [Sampled(0, Said(TurnKind.SEARCH, "", ())), Answered(0, (), ())]
    handle: Any = Handle([*searched, WHOLE])
    engines = Engines(handle, clock=lambda: now[0])
    await engines.ready()
    assert handle.probes == 1
    assert [one async for one in engines.news(Asked("Where?"))]
    now[0] += 9.0
    await engines.ready()
    assert handle.probes == 1
    now[0] += 2.0
    await engines.ready()
    assert handle.probes == 2
