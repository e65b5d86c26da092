"""Stored groups credited again, by as many methods as one likes: no model, no engine, no GPU.

S turns of a trajectory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibadv.advantages.gae import WHITEN_EPSILON
from calibadv.advantages.group import STD_EPSILON
from calibadv.methods import METHODS, Method, make_method
from calibadv.methods.reasons import Explanation, Reasons, Term, turn_means
from calibadv.methods.rows import step_facts
from calibadv.rewards.gold_match import gold_documents
from calibadv.rewards.turns import with_turn_rewards
from calibadv.tracking.groups import StoredStep
from calibadv.types import Document, Group

TURN_ALIKE = 1e-4  # reasons that differ from the credit by more are not shown: they are another credit's


@dataclass(frozen=True, slots=True)
class Credited:
    """What one method makes of one group."""

    method: str
    group: Group  # with this method's turn rewards
    credit: list[list[float]]  # the mean of each turn's tokens, rows [S]
    reasons: Explanation | None  # None: the method tells none
    note: str = ""  # what to know of it before it is compared


def methods_for(stored: StoredStep, names: Sequence[str] = ()) -> dict[str, Method]:
    """The method that trained first, with its parameters, then those of `names`, or all of ours.

    ValueError for a name that is no method.
    """
    trained = make_method(stored.method, dict(stored.params))
    others = [name for name in names or METHODS if name != stored.method]
    return {stored.method: trained} | {name: make_method(name, {}) for name in others}


def with_known_gold(steps: Iterable[StoredStep]) -> list[StoredStep]:
    """The steps of a run, without gold ids where no document that they hold is a gold passage of its question.

    The ids are of a corpus of the data set's own then, and that a search found none of them says nothing.
    """
    given = list(steps)
    if any(gold_documents(group, stored.documents) for stored in given for group in stored.groups):
        return given
    return [replace(stored, groups=tuple(map(_without_gold_ids, stored.groups))) for stored in given]


def credited(stored: StoredStep, methods: Mapping[str, Method]) -> list[dict[str, Credited]]:
    """Of each stored group, by method, its credit and reasons.

    Turn rewards are the stored ones for the method that trained, and are made anew for the others. A critic's method
    has the credit of a critic that says 0, whitened over what is stored of the step where it whitens; where it trained
    the run, the credit is the stored one, and what its critic's values made of it is one term of the reasons.
    """
    columns = {name: _by_method(stored, name, method) for name, method in methods.items()}
    return [{name: column[g] for name, column in columns.items()} for g in range(len(stored.groups))]


def _by_method(stored: StoredStep, name: str, method: Method) -> list[Credited]:
    groups = list(stored.groups)
    if method.score_turns is not None and name != stored.method:
        groups = asyncio.run(_scored(stored, method))
    credits_ = [method.advantages(group) for group in groups]
    means = [turn_means(credit, group) for credit, group in zip(credits_, groups, strict=True)]
    reasons = [method.explain(group) if method.explain else None for group in groups]
    if method.by_step_deviation:
        scale = 1 / (step_facts(groups).deviation + STD_EPSILON)
        term = Term("1 / deviation of the step", scale, "of what is stored of it")
        means = [[[value * scale for value in row_S] for row_S in rows] for rows in means]
        reasons = [rows and [[replace(r.times(term), note="") for r in row_S] for row_S in rows] for rows in reasons]
    if method.critic is not None and method.critic.whiten:
        tokens = np.concatenate([row_N for credit in credits_ for row_N in credit], dtype=np.float64)
        mean, scale = float(tokens.mean()), 1 / float(np.sqrt(tokens.var(ddof=1) + WHITEN_EPSILON))
        means = [[[(value - mean) * scale for value in row_S] for row_S in rows] for rows in means]
        reasons = [rows and [[_whitened(r, mean, scale) for r in row_S] for row_S in rows] for rows in reasons]
    as_trained = method.critic is not None and name == stored.method
    if as_trained:
        trained = [[list(row_S) for row_S in rows] for rows in stored.trained]
        reasons = [told and _with_values(told, rows) for told, rows in zip(reasons, trained, strict=True)]
        means = trained
    return [
        Credited(name, group, rows, explained if _fits(explained, rows) else None, _note(method, group, as_trained))
        for group, rows, explained in zip(groups, means, reasons, strict=True)
    ]


def _without_gold_ids(group: Group) -> Group:
    return replace(group, question=replace(group.question, gold_doc_ids=()))


def _with_gold_texts(group: Group, documents: Mapping[str, Document]) -> Group:
    """The group with the texts of its gold passages, where it lacks them and all of them were retrieved."""
    ids = group.question.gold_doc_ids
    if group.question.gold_passages or not all(doc in documents for doc in ids):
        return group
    titles, texts = tuple(documents[doc].title for doc in ids), tuple(documents[doc].text for doc in ids)
    return replace(group, question=replace(group.question, gold_titles=titles, gold_passages=texts))


async def _scored(stored: StoredStep, method: Method) -> list[Group]:
    assert method.score_turns is not None
    score, scored = method.score_turns(), []
    for group in stored.groups:
        if method.gold is not None and method.gold.what == "texts":
            group = _with_gold_texts(group, stored.documents)
        documents = {doc: stored.documents[doc] for doc in group.doc_ids if doc in stored.documents}
        scored.append(with_turn_rewards(group, (await score(group, documents)).rewards))
    return scored


def _with_values(reasons: Explanation, trained: Sequence[Sequence[float]]) -> Explanation:
    """The reasons of a critic that says 0, and as one more term what the real one's values made of them."""
    why = "as it trained, less what a critic that says 0 gives"
    return [
        [
            replace(told.plus(Term("the critic's values", value - told.total, why)), note="")
            for told, value in zip(row, row_S, strict=True)
        ]
        for row, row_S in zip(reasons, trained, strict=True)
    ]


def _whitened(reasons: Reasons, mean: float, scale: float) -> Reasons:
    return reasons.plus(Term("- mean of the step", -mean)).times(Term("1 / deviation of the step", scale))


def _fits(reasons: Explanation | None, credit: Sequence[Sequence[float]]) -> bool:
    """Whether the reasons are this credit's: a method of the user's may have been made of another that explains."""
    if reasons is None:
        return False
    pairs = zip(reasons, credit, strict=True)
    return all(abs(r.total - value) < TURN_ALIKE for row, values in pairs for r, value in zip(row, values, strict=True))


def _note(method: Method, group: Group, as_trained: bool) -> str:
    notes = []
    if as_trained:
        notes.append("as it trained: its critic's values and the whole step's whitening are one term")
    elif method.critic is not None:
        notes.append("a critic that says 0: its values are not stored")
    question = group.question
    if method.gold is not None and method.gold.what == "documents" and not question.gold_doc_ids:
        notes.append("no gold passage of the question is known")
    if method.gold is not None and method.gold.what == "texts" and not question.gold_passages:
        notes.append("no rewards at searches: what the gold passages say is not known")
    if method.name == "tree_grpo" and not any(t.tree for t in group.trajectories):
        notes.append("all rollouts are of one tree: twice GRPO")
    return "; ".join(notes)
