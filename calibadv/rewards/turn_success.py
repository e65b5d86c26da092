"""MT-GRPO's turn rewards: did a search return something, and does a golden answer stand in what it returned.

S turns of a trajectory. 0.2 for success + 0.5 for an answer among the documents (Wei et al. 2025, official code).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence, Set

from calibadv.rewards.answer import normalise
from calibadv.rewards.turns import TurnRewards
from calibadv.types import Document, Group, Question, TokenUnit, Trajectory, Turn, TurnKind
from calibadv.unspaced import in_word

SUCCESS_REWARD = 0.2
ANSWER_REWARD = 0.5
UNSPECIFIC = ("yes", "no")  # stand in most texts, whatever was asked


def first_search_rewards(group: Group, documents: Mapping[str, Document]) -> TurnRewards:
    """0.2 * share of the trajectory's calls that succeeded + 0.5 if its first search found an answer. Rows [S].

    At the first search, 0 at all other turns. A call is a search that was carried out, as in the official code: neither
    void turns nor a search where only an answer was left are calls. One without any document failed. No call: all 0.
    """
    answering = answer_documents(group.question, documents)
    return [_first_search_row(trajectory, answering) for trajectory in group.trajectories]


def each_search_rewards(group: Group, documents: Mapping[str, Document]) -> TurnRewards:
    """0.2 if the turn is a search that returned documents + 0.5 if an answer stands in them. Rows [S]."""
    answering = answer_documents(group.question, documents)
    return [
        [SUCCESS_REWARD * _succeeded(turn) + ANSWER_REWARD * _found(turn, answering) for turn in trajectory.turns]
        for trajectory in group.trajectories
    ]


def first_search(trajectory: Trajectory) -> int | None:
    """Index of the trajectory's first search that was carried out; None if there is none."""
    return next((s for s in range(len(trajectory.turns)) if _carried_out(trajectory, s)), None)


def answer_documents(question: Question, documents: Mapping[str, Document]) -> frozenset[str]:
    """Ids of the documents in whose title or text a golden answer stands."""
    return frozenset(
        id
        for id, document in documents.items()
        if any(
            contains_answer(text, question.golden_answers, question.tokens) for text in (document.title, document.text)
        )
    )


def contains_answer(text: str, golden_answers: Sequence[str], tokens: TokenUnit = TokenUnit.WORDS) -> bool:
    """Whether a golden answer stands in `text` as whole words, both composed (NFC) and normalised.

    yes and no never do, nor does an answer of which nothing is left when it is normalised (our decision).
    """
    normal, *answers = (normalise(unicodedata.normalize("NFC", one), tokens) for one in (text, *golden_answers))
    return any(_stands(answer, normal, tokens) for answer in {*answers} - {"", *UNSPECIFIC})


def _stands(answer: str, text: str, tokens: TokenUnit) -> bool:
    """Whether it is there with no word going on at either end."""
    goes_on = in_word if tokens == TokenUnit.WORDS else lambda char: not char.isspace()
    start = text.find(answer)
    while start >= 0:
        end = start + len(answer)
        if not any(map(goes_on, text[max(0, start - 1) : start] + text[end : end + 1])):
            return True
        start = text.find(answer, start + 1)
    return False


def _first_search_row(trajectory: Trajectory, answering: Set[str]) -> list[float]:
    rewards_S = [0.0] * len(trajectory.turns)
    first = first_search(trajectory)
    if first is not None:
        calls = [turn for s, turn in enumerate(trajectory.turns) if _carried_out(trajectory, s)]
        succeeded = sum(map(_succeeded, calls)) / len(calls)
        rewards_S[first] = SUCCESS_REWARD * succeeded + ANSWER_REWARD * _found(trajectory.turns[first], answering)
    return rewards_S


def _carried_out(trajectory: Trajectory, step: int) -> bool:
    turn = trajectory.turns[step]
    if turn.kind is not TurnKind.SEARCH or (trajectory.forced_final and step == len(trajectory.turns) - 1):
        return False
    return bool(turn.doc_ids) or len(turn.observation_ids) > 0


def _succeeded(turn: Turn) -> bool:
    return turn.kind is TurnKind.SEARCH and bool(turn.doc_ids)


def _found(turn: Turn, answering: Set[str]) -> bool:
    return not answering.isdisjoint(turn.doc_ids)
