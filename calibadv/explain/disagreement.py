"""Where methods disagree about a search, and why; how often each blames a search that was likely right.

A *search* here is an intermediate search turn. Credit within 1e-6 of 0 is no blame and no praise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from calibadv.advantages.group import EQUAL_REWARDS
from calibadv.advantages.silver import silver_documents, step_scores
from calibadv.diagnostics import all_silver
from calibadv.explain.replay import Credited
from calibadv.types import Group, TurnKind

NOTHING = 1e-6


class Why(StrEnum):
    """What a search's documents say beside its rollout's outcome. The first that holds."""

    GOLD_BLAMED = "found a gold passage that no correct rollout found, in a rollout that failed"
    SILVER_MISLEADS = "found silver documents, none of them gold"
    SPARED = "found silver documents, in a rollout that failed"
    LUCKY = "found no gold passage, in a rollout that succeeded"
    OTHER = "is none of these"


@dataclass(frozen=True, slots=True)
class Search:
    """One search with the credit that each method gives it."""

    step: int
    group: Group
    rollout: int  # index in the group
    turn: int  # index in the rollout
    c: float  # the paper's silver score
    likely_correct: bool  # all of its documents are silver
    gold_share: float | None  # of its documents; None where the question's gold passages are not known by id
    credit: Mapping[str, float]  # by method
    relative: Mapping[str, float]  # the same in units of the method's mean |credit| over all searches looked at

    @property
    def signs(self) -> dict[str, int]:
        return {name: 0 if abs(value) < NOTHING else int(np.sign(value)) for name, value in self.credit.items()}

    @property
    def opposed(self) -> int:
        """Pairs of methods of which one blames it and the other praises it."""
        signs = Counter(self.signs.values())
        return signs[1] * signs[-1]

    @property
    def spread(self) -> float:
        """How far apart the methods are, in units of their mean credit."""
        return max(self.relative.values()) - min(self.relative.values())

    @property
    def failed(self) -> bool:
        """Whether its rollout is below the group's mean reward: GRPO blames all of it."""
        return self._outcome < -EQUAL_REWARDS

    @property
    def succeeded(self) -> bool:
        """Whether its rollout is above the group's mean reward."""
        return self._outcome > EQUAL_REWARDS

    @property
    def _outcome(self) -> float:
        rewards = [trajectory.reward for trajectory in self.group.trajectories]
        return rewards[self.rollout] - float(np.mean(rewards))

    @property
    def why(self) -> Why:
        gold = self.gold_share
        if gold and not self.c and self.failed:
            return Why.GOLD_BLAMED
        if gold == 0 and self.c:
            return Why.SILVER_MISLEADS
        if self.c and self.failed:
            return Why.SPARED
        return Why.LUCKY if gold == 0 and self.succeeded else Why.OTHER


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """What one method did to the searches looked at. None where it is undefined."""

    searches: int
    blamed: int
    blamed_all_silver: float | None  # share of the blamed whose documents are all silver (the paper's figure 2)
    blamed_any_silver: float | None  # share of the blamed with any silver document
    neg_pos: float | None  # |negative| over positive credit, summed over turns by their tokens
    agrees: Mapping[str, float]  # with each method, share of searches of equal sign


def searches_of(step: int, groups: Sequence[Mapping[str, Credited]]) -> list[Search]:
    """Every intermediate search of the groups, as `replay.credited` has them. Credit is relative to these."""
    found = []
    for columns in groups:
        group = next(iter(columns.values())).group
        silver = silver_documents(group)
        for i, (trajectory, scores_S) in enumerate(zip(group.trajectories, step_scores(group, silver), strict=True)):
            for s, turn in enumerate(trajectory.turns[:-1]):
                if turn.kind is TurnKind.SEARCH:
                    documents, gold = set(turn.doc_ids), set(group.question.gold_doc_ids)
                    found.append(
                        Search(
                            step, group, i, s, float(scores_S[s]), all_silver(documents, silver),
                            len(documents & gold) / len(documents) if gold and documents else None,
                            {name: column.credit[i][s] for name, column in columns.items()}, {},
                        )
                    )  # fmt: skip
    return found


def with_relative(searches: Sequence[Search]) -> list[Search]:
    """The searches with each method's credit in units of its mean |credit| over all of them."""
    names = searches[0].credit if searches else {}
    unit = {name: float(np.mean([abs(s.credit[name]) for s in searches])) or 1.0 for name in names}
    return [
        Search(
            s.step, s.group, s.rollout, s.turn, s.c, s.likely_correct, s.gold_share, s.credit,
            {name: value / unit[name] for name, value in s.credit.items()},
        )
        for s in searches
    ]  # fmt: skip


def most_disputed(searches: Sequence[Search]) -> list[Search]:
    """Searches on which signs differ first, then by how far apart the methods are."""
    return sorted(with_relative(searches), key=lambda search: (-search.opposed, -search.spread))


def figures(searches: Sequence[Search], groups: Sequence[Mapping[str, Credited]]) -> dict[str, MethodFigures]:
    """Of each method, over all searches and, for its masses, over all turns of the groups."""
    names = list(groups[0]) if groups else []
    agrees: dict[str, dict[str, float]] = {name: {name: 1.0} for name in names}
    for one, other in combinations(names, 2):
        alike = [search.signs[one] == search.signs[other] for search in searches]
        agrees[one][other] = agrees[other][one] = float(np.mean(alike)) if alike else float("nan")
    made = {}
    for name in names:
        blamed = [search for search in searches if search.signs[name] < 0]
        made[name] = MethodFigures(
            len(searches),
            len(blamed),
            _share(search.likely_correct for search in blamed),
            _share(search.c > 0 for search in blamed),
            _neg_pos([columns[name] for columns in groups]),
            agrees[name],
        )
    return made


def _share(values: object) -> float | None:
    listed = list(values)  # type: ignore[call-overload]
    return float(np.mean(listed)) if listed else None


def _neg_pos(columns: Sequence[Credited]) -> float | None:
    masses = [
        value * len(turn.action_ids)
        for column in columns
        for trajectory, row_S in zip(column.group.trajectories, column.credit, strict=True)
        for turn, value in zip(trajectory.turns, row_S, strict=True)
    ]
    positive = sum(mass for mass in masses if mass > 0)
    return -sum(mass for mass in masses if mass < 0) / positive if positive else None
