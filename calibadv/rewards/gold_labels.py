"""Labels of searches by the question's gold passages: what CriticSearch's judge would say if it knew them."""

from __future__ import annotations

from collections.abc import Mapping

from calibadv.rewards.gold_match import gold_found
from calibadv.rewards.turns import TurnRewards
from calibadv.types import Document, Group, Trajectory, TurnKind


def gold_labels(group: Group, documents: Mapping[str, Document]) -> TurnRewards:
    """+1 at a search that found a gold passage which its rollout had not found before, -1 at any other. Rows [S].

    Turns that do not search get 0, and so does every turn where the question has no gold passages: nothing is known
    then. A document is a gold passage by its id, or by title and text (`rewards.gold_match`). Offline stand-in for the
    judge (our decision).
    """
    question = group.question
    gold = {doc: frozenset(gold_found(question, doc, documents.get(doc))) for doc in group.doc_ids}
    known = bool(question.gold_doc_ids)
    return [_labels(trajectory, gold, known) for trajectory in group.trajectories]


def _labels(trajectory: Trajectory, gold: Mapping[str, frozenset[int]], known: bool) -> list[float]:
    labels_S, seen = [], frozenset[int]()
    for turn in trajectory.turns:
        found = frozenset[int]().union(*(gold[doc] for doc in turn.doc_ids))
        searched = known and turn.kind is TurnKind.SEARCH
        labels_S.append((1.0 if found - seen else -1.0) if searched else 0.0)
        seen |= found
    return labels_S
