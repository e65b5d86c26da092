"""Stored groups as a page shows them: rollouts with their documents, and of every turn each method's credit and why.

Texts are cut, a document is there once for all rollouts that read it. S turns of a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from calibadv.advantages.silver import silver_documents
from calibadv.explain.disagreement import Search
from calibadv.explain.replay import Credited
from calibadv.methods.reasons import Reasons
from calibadv.rewards.gold_match import gold_documents
from calibadv.tags import think_text
from calibadv.tracking.groups import StoredStep
from calibadv.types import Document, Trajectory, Turn, TurnKind

LONGEST_TEXT = 4_000  # characters of what a turn wrote
LONGEST_DOCUMENT = 1_500
DIGITS = 4  # of credit and of the terms that it is made of


@dataclass(frozen=True, slots=True)
class Replayed:
    """One stored group with what every method makes of it."""

    stored: StoredStep
    columns: Mapping[str, Credited]


@dataclass
class Library:
    """Documents by their place in the page's list."""

    documents: list[dict[str, str]] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, doc: str, known: Mapping[str, Document]) -> int:
        """The document's index; it is taken up where it is new."""
        if doc not in self._places:
            self._places[doc] = len(self.documents)
            document = known.get(doc)
            title, text = (document.title, document.text) if document else (doc, "")
            self.documents.append({"id": doc, "title": title, "text": _cut(text, LONGEST_DOCUMENT)})
        return self._places[doc]


def evenly_spaced(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of the steps, evenly over all of them, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / max(most - 1, 1))] for i in range(most)]


def first_groups(stored: StoredStep, count: int) -> StoredStep:
    """The step with its first `count` groups alone."""
    return replace(stored, groups=stored.groups[:count], trained=stored.trained[:count])


def group_json(replayed: Replayed, searches: Sequence[Search], library: Library) -> dict[str, Any]:
    """A group for the page. `searches`: those of this group, each with what its documents say beside the outcome."""
    stored, columns = replayed.stored, replayed.columns
    group = next(iter(columns.values())).group
    question, silver = group.question, silver_documents(group)
    told = {(search.rollout, search.turn): search for search in searches}
    return {
        "step": stored.step,
        "id": question.id,
        "question": question.text,
        "golden": list(question.golden_answers),
        "metadata": dict(question.metadata),
        "gold": sorted(library.place(doc, stored.documents) for doc in gold_documents(group, stored.documents)),
        "silver": sorted(library.place(doc, stored.documents) for doc in silver & group.doc_ids),
        "notes": {name: column.note for name, column in columns.items() if column.note},
        "rollouts": [
            {
                **_rollout(trajectory),
                "turns": [
                    _turn(turn, told.get((i, s)), stored.documents, library)
                    | {
                        "credit": [round(column.credit[i][s], DIGITS) + 0.0 for column in columns.values()],
                        "why": [_why(column.reasons[i][s]) if column.reasons else None for column in columns.values()],
                    }
                    for s, turn in enumerate(trajectory.turns)
                ],
            }
            for i, trajectory in enumerate(group.trajectories)
        ],
    }


def _rollout(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "reward": round(trajectory.reward, DIGITS),
        "f1": round(trajectory.answer_reward, DIGITS),
        "format": trajectory.format_reward,
        "parts": dict(trajectory.reward_parts),
        "answer": trajectory.answer,
        "tokens": trajectory.num_tokens,
        "tree": trajectory.tree,
        "truncated": trajectory.truncated,
        "forced": trajectory.forced_final,
        "version": trajectory.policy_version,
    }


def _turn(turn: Turn, search: Search | None, known: Mapping[str, Document], library: Library) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": str(turn.kind),
        "think": _cut(think_text(turn.text), LONGEST_TEXT),
        "tokens": len(turn.action_ids),
        "logprob": round(float(turn.logprobs.sum()), 3),
    }
    if turn.query is not None:
        row["query"] = _cut(turn.query, LONGEST_TEXT)
    if turn.kind is not TurnKind.SEARCH:
        row["text"] = _cut(turn.text, LONGEST_TEXT)
    if told := [[call.tool, _cut(call.text, LONGEST_TEXT)] for call in turn.called if call.text is not None]:
        row["told"] = told
    if turn.doc_ids:
        row["docs"] = [library.place(doc, known) for doc in turn.doc_ids]
    if turn.node >= 0:
        row["node"] = turn.node
    if turn.reward:
        row["reward"] = round(turn.reward, DIGITS)
    if turn.search_s or turn.generate_s:
        row["seconds"] = [round(turn.generate_s, 2), round(turn.search_s, 2)]
    if search is not None:
        row |= {"c": round(search.c, DIGITS), "kindOf": search.why.name, "opposed": search.opposed}
    return row


def _why(reasons: Reasons) -> list[Any]:
    """[note, products]; a product is [[name, value, why], …]."""
    products = [
        [[term.name, float(f"{term.value:.{DIGITS}g}"), term.why] for term in product] for product in reasons.addends
    ]
    return [reasons.note, products]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} characters more)"
