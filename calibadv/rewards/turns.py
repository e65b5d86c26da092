"""What a turn scorer is: step rewards of a whole group, given while its documents are at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from calibadv.types import Document, Group

TurnRewards = Sequence[Sequence[float]]
"""A row a trajectory, a number a turn."""


@dataclass(frozen=True, slots=True)
class TurnScores:
    """A scorer's rewards, and what it has to report, summed over a step (e.g. `judge/unreadable`)."""

    rewards: TurnRewards
    counts: Mapping[str, float] = field(default_factory=dict)


TurnScorer = Callable[[Group, Mapping[str, Document]], Awaitable[TurnScores]]
"""(group, every document that it retrieved by id) -> its turns' rewards"""


def at_once(rewards: Callable[[Group, Mapping[str, Document]], TurnRewards]) -> Callable[[], TurnScorer]:
    """A scorer that waits for nothing, as `Method.score_turns` wants it."""

    async def score(group: Group, documents: Mapping[str, Document]) -> TurnScores:
        return TurnScores(rewards(group, documents))

    return lambda: score


def with_turn_rewards(group: Group, rewards: TurnRewards) -> Group:
    """The group with `Turn.reward` set."""
    return replace(
        group,
        trajectories=tuple(
            replace(t, turns=tuple(replace(turn, reward=float(r)) for turn, r in zip(t.turns, row, strict=True)))
            for t, row in zip(group.trajectories, rewards, strict=True)
        ),
    )
