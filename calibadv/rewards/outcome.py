"""The outcome reward of a rollout (`reward.outcome`): one of ours by name, or the user's own function."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from calibadv.nearest import did_you_mean
from calibadv.retries import PAUSE_S, in_words, retried
from calibadv.rewards.answer import best_over_golden, cover_em, exact_match
from calibadv.rewards.judge import Endpoint
from calibadv.rewards.judged_answer import JudgedAnswer
from calibadv.rewards.overlong import Overlong
from calibadv.types import Question, Trajectory
from calibadv.user_code import called, load, names_code

Reward = float | Mapping[str, float]
"""A number, or named parts whose sum it is; the mean of each part is a metric, `reward/part_<name>`."""
OutcomeFn = Callable[[Question, Trajectory], Reward | Awaitable[Reward]]

FORMAT_BONUS = 0.2


def f1(_: Question, trajectory: Trajectory) -> float:
    """F1 of the answer, 0 of a rollout that is not well-formed (CalibAdv sec. 2): the default."""
    return trajectory.answer_reward * trajectory.format_reward


def f1_ungated(_: Question, trajectory: Trajectory) -> float:
    """F1 of the answer, whatever the format."""
    return trajectory.answer_reward


def em(question: Question, trajectory: Trajectory) -> float:
    """1 where the answer equals a golden one and the rollout is well-formed, else 0."""
    return trajectory.format_reward * best_over_golden(
        trajectory.answer, question.golden_answers, exact_match, question.tokens
    )


def cover(question: Question, trajectory: Trajectory) -> float:
    """1 where the answer contains a golden one and the rollout is well-formed, else 0 (Search-R1's sub-EM, gated)."""
    return trajectory.format_reward * best_over_golden(
        trajectory.answer, question.golden_answers, cover_em, question.tokens
    )


def format_bonus(question: Question, trajectory: Trajectory) -> Mapping[str, float]:
    """0.8 of the gated F1, and 0.2 for being well-formed, so that a policy may learn the format from nothing."""
    return {
        "answer": (1 - FORMAT_BONUS) * f1(question, trajectory),
        "well_formed": FORMAT_BONUS * trajectory.format_reward,
    }


OUTCOMES: dict[str, OutcomeFn] = {
    "f1": f1,
    "f1_ungated": f1_ungated,
    "em": em,
    "cover_em": cover,
    "format_bonus": format_bonus,
}
JUDGE = "judge"
OUTCOME, OVERLONG = "outcome", "overlong"  # parts of a reward that is a number, less what its length costs


class RewardFailed(Exception):
    """A reward function raised, or gave no finite number: the environment's fault, never the policy's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores rollouts by a function, tried `retries` times more where it fails."""

    function: OutcomeFn = f1
    retries: int = 2
    overlong: Overlong | None = None
    pause_s: float = PAUSE_S  # after the first attempt, then doubled

    async def __call__(self, question: Question, trajectory: Trajectory) -> Trajectory:
        """The trajectory with its reward and the parts of it. Raises `RewardFailed`."""

        async def attempt() -> Trajectory:
            given: Any = (
                self.function(question, trajectory)
                if self.function in OUTCOMES.values()
                else await called(self.function, question, trajectory)
            )
            return _with_reward(trajectory, given, self.overlong)

        try:
            return await retried(attempt, self.retries, pause_s=self.pause_s)
        except Exception as error:
            raise RewardFailed(f"no reward for a rollout of question {question.id!r} ({in_words(error)})") from error


def make_outcome(
    name: str, retries: int = 2, judge: Endpoint | None = None, overlong: Overlong | None = None
) -> Outcome:
    """The reward of this name, or of the function that it names. ValueError with the nearest right name.

    `judge` has retries of its own.
    """
    if name == JUDGE and judge:
        return Outcome(JudgedAnswer(judge).reward, 0, overlong)
    if names_code(name):
        function = load(name, "reward.outcome")
        if not callable(function):
            raise ValueError(f"reward.outcome = {name!r} is no function: it is {function!r}")
        return Outcome(function, retries, overlong)
    if name not in OUTCOMES:
        raise ValueError(
            f"reward.outcome = {name!r} is not known{did_you_mean(name, [*OUTCOMES, JUDGE])}; expected one of "
            f"{', '.join([*OUTCOMES, JUDGE])}, or a function as file.py:name or package.module:name"
        )
    return Outcome(OUTCOMES[name], retries, overlong)


def _with_reward(trajectory: Trajectory, given: Reward, overlong: Overlong | None) -> Trajectory:
    parts = {str(name): float(value) for name, value in given.items()} if isinstance(given, Mapping) else {}
    reward = sum(parts.values()) if isinstance(given, Mapping) else float(given)
    if not math.isfinite(reward) or (isinstance(given, Mapping) and not parts):
        raise ValueError(f"it gave {given!r}, expected a finite number or named ones")
    if overlong is not None:
        parts = parts or {OUTCOME: reward}
        parts[OVERLONG] = parts.get(OVERLONG, 0.0) + overlong(trajectory)
        reward = sum(parts.values())
    return replace(trajectory, reward=reward, reward_parts=parts)
