"""What a policy thinks and does that asks a question's gold sub-queries in order and then answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from calibadv.json_lines import json_value
from calibadv.types import Question

HOP_ANSWERS = "hop_answers"  # of `Question.metadata`: a JSON list, one string a sub-query, "" where unknown

_RELATION = re.compile(r"\s*>>\s*")
_BEFORE_STOP = re.compile(r"\s+(?=[?.,;!])")


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of the way to the answer: what to search, and what is found then, "" where the data does not say."""

    query: str
    answer: str = ""


def gold_hops(question: Question) -> tuple[Hop, ...]:
    """The hops of a question's gold decomposition; () where it has none or one of them asks nothing.

    ValueError where `metadata["hop_answers"]` is there but not one string a sub-query.
    """
    queries = [readable_query(query) for query in question.sub_queries]
    if not all(queries):
        return ()
    return tuple(Hop(query, answer) for query, answer in zip(queries, _answers(question), strict=True))


def readable_query(sub_query: str) -> str:
    """A gold sub-query as one would type it: "Green >> performer" is "Green performer"."""
    return _BEFORE_STOP.sub("", " ".join(_RELATION.sub(" ", sub_query).split()))


def search_thought(hop: Hop, previous: Hop | None, *, read: bool) -> str:
    """What is thought before `hop` is searched.

    It says what `previous` found only where that was `read` in a document, so that no demonstration claims to have
    read what was not there.
    """
    if previous is None:
        return f"To answer this, I first need to know: {hop.query}"
    if read and previous.answer:
        return f"The documents say it is {previous.answer}. Now I need: {hop.query}"
    return f"Now I need: {hop.query}"


def answer_thought(answer: str, *, read: bool) -> str:
    """What is thought before the answer is given; it says whether that was `read` in a document."""
    if read:
        return f"The documents say it is {answer}."
    return f"The documents do not say it. I believe it is {answer}."


def _answers(question: Question) -> Sequence[str]:
    given = question.metadata.get(HOP_ANSWERS)
    if given is None:
        return [""] * len(question.sub_queries)
    try:
        answers = json_value(given)
    except ValueError:
        answers = None
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(
            f"question {question.id!r}: metadata {HOP_ANSWERS!r} is {given!r}; expected a JSON list of strings"
        )
    if len(answers) != len(question.sub_queries):
        raise ValueError(
            f"question {question.id!r}: {len(answers)} hop answers for {len(question.sub_queries)} sub-queries; "
            'expected one each, "" where it is unknown'
        )
    return answers
