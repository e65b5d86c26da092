"""Rewards of turns by the user's own function (`reward.turns`), for every method that reads some."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from calibadv.retries import PAUSE_S, in_words, retried
from calibadv.rewards.outcome import RewardFailed
from calibadv.rewards.turns import TurnScorer, TurnScores
from calibadv.types import Document, Group, Question, Trajectory
from calibadv.user_code import called, load

Row = Sequence[float]
TurnsFn = Callable[[Question, Trajectory, Mapping[str, Document]], Row | Awaitable[Row]]
"""(question, rollout, every document that the question's rollouts retrieved by id) -> a number for each of its turns"""


@dataclass(frozen=True, slots=True)
class OwnTurns:
    """Scores a group by a function of one rollout, tried `retries` times more where it fails."""

    function: TurnsFn
    retries: int = 2
    pause_s: float = PAUSE_S  # after the first attempt, then doubled

    async def __call__(self, group: Group, documents: Mapping[str, Document]) -> TurnScores:
        """The rewards of all turns. Raises `RewardFailed`: a group is scored as a whole or not at all."""

        async def row(trajectory: Trajectory) -> list[float]:
            async def attempt() -> list[float]:
                return _checked(await called(self.function, group.question, trajectory, documents), trajectory)

            return await retried(attempt, self.retries, pause_s=self.pause_s)

        try:
            return TurnScores(await asyncio.gather(*map(row, group.trajectories)))
        except Exception as error:
            raise RewardFailed(f"no rewards of turns for question {group.question.id!r} ({in_words(error)})") from error


def own_turns(reference: str, retries: int = 2) -> Callable[[], OwnTurns]:
    """The function that `reward.turns` names, as `Method.score_turns` wants it. ValueError where it names none."""
    function = load(reference, "reward.turns")
    if not callable(function):
        raise ValueError(f"reward.turns = {reference!r} is no function: it is {function!r}")
    return lambda: OwnTurns(function, retries)


def unscored() -> TurnScorer:
    """Stands for the scorer of a method that reads the user's rewards of turns alone."""

    async def score(_group: Group, _documents: Mapping[str, Document]) -> TurnScores:
        raise ValueError("reward.turns is not set: there is nobody to score the turns")

    return score


def _checked(given: Row, trajectory: Trajectory) -> list[float]:
    row = [float(value) for value in given]
    if len(row) != len(trajectory.turns) or not all(map(math.isfinite, row)):
        raise ValueError(f"it gave {given!r}, expected a finite number for each of {len(trajectory.turns)} turns")
    return row
