"""What a written question must be: its answers stand in its passages, it gives none away, and the search finds them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from calibadv.authoring.prompts import Draft
from calibadv.rewards.answer import best_over_golden, exact_match
from calibadv.rewards.turn_success import contains_answer
from calibadv.rollout.protocols import SearchFn
from calibadv.types import Document, TokenUnit


class Fate(StrEnum):
    """What became of a group of passages that the model was shown."""

    KEPT = "kept"
    DECLINED = "the model found no question in them"
    UNREADABLE = "reply that cannot be read"
    FAILED = "call without a reply"
    OTHER_HOPS = "other hops than asked for"
    UNSUPPORTED = "answer that does not stand in its passage"
    GIVEN_AWAY = "question that gives an answer away"
    REPEATED = "question that was written before"
    UNREACHABLE = "passage that its step's search does not find"
    UNANSWERED = "question that its passages do not answer"
    KNOWN = "question that the model answers without them"


def flaw(draft: Draft, passages: Sequence[Document], hops: int, tokens: TokenUnit = TokenUnit.WORDS) -> Fate | None:
    """What is wrong with a draft in itself; None for a good one.

    An answer stands in its passage as whole words (`contains_answer`, which yes and no never do), in title or text. No
    step's answer stands in the question.
    """
    numbers = [step.passage for step in draft.steps]
    known = all(1 <= number <= len(passages) for number in numbers)
    if len(numbers) != hops or len(set(numbers)) != hops or not known:
        return Fate.OTHER_HOPS
    for step in draft.steps:
        passage = passages[step.passage - 1]
        if not contains_answer(f"{passage.title}\n{passage.text}", [step.answer], tokens):
            return Fate.UNSUPPORTED
        if contains_answer(draft.question, [step.answer], tokens):
            return Fate.GIVEN_AWAY
    return None


async def ranks_of(draft: Draft, gold: Sequence[Document], search: SearchFn) -> tuple[int | None, ...]:
    """The rank of each step's gold passage, from 1, where its question is searched; None where it is not found.

    Raises what `search` raises.
    """
    found = [await search(step.question) for step in draft.steps]
    return tuple(
        next((rank for rank, document in enumerate(documents, start=1) if document.id == wanted.id), None)
        for documents, wanted in zip(found, gold, strict=True)
    )


def is_answer(given: str | None, golden: str, tokens: TokenUnit = TokenUnit.WORDS) -> bool:
    """Whether an answer equals the golden one as evaluations score it. None, no answer, never does."""
    return given is not None and best_over_golden(given, [golden], exact_match, tokens) == 1.0
