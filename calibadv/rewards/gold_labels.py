"""Labels of searches by the question's gold passages: what CriticSearch's judge would say if it knew them."""

from __future__ import annotations

from collections.abc import Mapping

from calibadv.rewards.turns import TurnRewards
from calibadv.types import Document, Group, Trajectory, TurnKind


def gold_labels(group: Group, _documents: Mapping[str, Document]) -> TurnRewards:
    """+1 at a search that found a gold passage which its rollout had not found before, -1 at any other. Rows [S].

    Turns that do not search get 0, and so does every turn where the question has no gold passages: nothing is known
    then. Offline stand-in for the judge (our decision); documents are compared by id.
    """
    gold = frozenset(group.question.gold_doc_ids)
    return [_labels(trajectory, gold) for trajectory in group.trajectories]


def _labels(trajectory: Trajectory, gold: frozenset[str]) -> list[float]:
    labels_S, missing = [], gold
    for turn in trajectory.turns:
        found = missing.intersection(turn.doc_ids)
        known = gold and turn.kind is TurnKind.SEARCH
        labels_S.append((1.0 if found else -1.0) if known else 0.0)
        missing -= found
    return labels_S
