"""How far the rollouts of a process are, for people who wait: counts that only grow, by phase and step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from calibadv.types import Phase

_KEPT = 4  # steps: the newest, which somebody may wait for


class Counts(NamedTuple):
    """What was done so far."""

    rollouts: int = 0  # finished
    searches: int = 0  # answered
    turns: int = 0  # sampled

    def plus(self, other: Counts) -> Counts:
        """The sum of both."""
        return Counts(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


Step = tuple[Phase, int]


@dataclass(frozen=True)
class Tally:
    """Counts of the newest steps, oldest first."""

    counts: dict[Step, Counts] = field(default_factory=dict)

    def add(self, step: Step, *, rollouts: int = 0, searches: int = 0, turns: int = 0) -> None:
        """More was done of `step`."""
        before = self.counts.get(step, Counts())
        self.counts[step] = before.plus(Counts(rollouts, searches, turns))
        while len(self.counts) > _KEPT:
            del self.counts[next(iter(self.counts))]

    def now(self) -> Mapping[Step, Counts]:
        """The counts of this moment."""
        return dict(self.counts)
