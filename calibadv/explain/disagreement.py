"""Where methods disagree about a search, and why; how often each blames a search that was likely right.

A *search* here is an intermediate search turn. Credit within 1e-6 of 0 is no blame and no praise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from calibadv.advantages.group import EQUAL_REWARDS
from calibadv.advantages.silver import silver_documents, step_scores
from calibadv.advantages.turns import spread
from calibadv.explain.replay import Credited
from calibadv.measures import all_silver, neg_pos_ratio, penalised_share
from calibadv.rewards.gold_match import gold_documents
from calibadv.tracking.groups import StoredStep
from calibadv.types import FloatArray, Group, TurnKind

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
    gold_share: float | None  # of its documents; None where the question's gold passages are not known
    credit: Mapping[str, float]  # by method

    def sign(self, method: str) -> int:
        """1 for praise, -1 for blame, 0 for neither."""
        value = self.credit[method]
        return 0 if abs(value) < NOTHING else int(np.sign(value))

    @property
    def opposed(self) -> int:
        """Pairs of methods of which one blames it and the other praises it."""
        signs = Counter(map(self.sign, self.credit))
        return signs[1] * signs[-1]

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


def searches_of(stored: StoredStep, groups: Sequence[Mapping[str, Credited]]) -> list[Search]:
    """Every intermediate search of the step's groups, or of some of them, as `replay.credited` has them."""
    found = []
    for columns in groups:
        group = next(iter(columns.values())).group
        silver, gold = silver_documents(group), gold_documents(group, stored.documents)
        for i, (trajectory, scores_S) in enumerate(zip(group.trajectories, step_scores(group, silver), strict=True)):
            for s, turn in enumerate(trajectory.turns[:-1]):
                if turn.kind is TurnKind.SEARCH:
                    documents, known = set(turn.doc_ids), bool(group.question.gold_doc_ids)
                    found.append(
                        Search(
                            stored.step, group, i, s, float(scores_S[s]), all_silver(documents, silver),
                            len(documents & gold) / len(documents) if known and documents else None,
                            {name: column.credit[i][s] for name, column in columns.items()},
                        )
                    )  # fmt: skip
    return found


def most_disputed(searches: Sequence[Search]) -> list[Search]:
    """Searches on which signs differ first, then by how far apart credit is, in units of a method's mean |credit|."""
    names = searches[0].credit if searches else {}
    unit = {name: float(np.mean([abs(s.credit[name]) for s in searches])) or 1.0 for name in names}

    def apart(search: Search) -> float:
        relative = [value / unit[name] for name, value in search.credit.items()]
        return max(relative) - min(relative)

    return sorted(searches, key=lambda search: (-search.opposed, -apart(search)))


def figures(searches: Sequence[Search], groups: Sequence[Mapping[str, Credited]]) -> dict[str, MethodFigures]:
    """Of each method, over all searches and, for its masses, over all turns of the groups."""
    names = list(groups[0]) if groups else []
    signs = {name: [search.sign(name) for search in searches] for name in names}
    agrees: dict[str, dict[str, float]] = {name: {name: 1.0} for name in names}
    for one, other in combinations(names, 2):
        alike = [a == b for a, b in zip(signs[one], signs[other], strict=True)]
        agrees[one][other] = agrees[other][one] = float(np.mean(alike)) if alike else float("nan")
    return {
        name: MethodFigures(
            searches=len(searches),
            blamed=signs[name].count(-1),
            blamed_all_silver=penalised_share(zip(signs[name], (s.likely_correct for s in searches), strict=True)),
            blamed_any_silver=penalised_share(zip(signs[name], (s.c > 0 for s in searches), strict=True)),
            neg_pos=neg_pos_ratio(_token_rows(columns[name] for columns in groups)),
            agrees=agrees[name],
        )
        for name in names
    }


def _token_rows(columns: Iterable[Credited]) -> Iterator[FloatArray]:
    for column in columns:
        yield from spread([np.asarray(row_S) for row_S in column.credit], column.group)
