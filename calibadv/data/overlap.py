"""Finds questions that stand in two sets: an evaluation on questions that were trained on says nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

Asked = tuple[str, str]
"""A question's id and its text."""


@dataclass(frozen=True, slots=True)
class Shared:
    """One question of a set that another set also asks, by their ids there."""

    id: str
    other_id: str
    question: str


def normalised_question(text: str) -> str:
    """`text` in compatible characters (NFKC) and lower case, without punctuation, white space squeezed.

    Words stay, articles too: questions that differ in one may have different answers. A text of nothing but punctuation
    stays as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(" " if unicodedata.category(char).startswith("P") else char for char in folded).split()
    return " ".join(words) if words else text.strip()


def shared_questions(ours: Iterable[Asked], others: Iterable[Asked]) -> list[Shared]:
    """Those of ours whose normalised question `others` ask too, each with the first of these; in our order."""
    first_of: dict[str, str] = {}
    for other_id, text in others:
        first_of.setdefault(normalised_question(text), other_id)
    found = ((id, text, first_of.get(normalised_question(text))) for id, text in ours)
    return [Shared(id, other_id, text) for id, text, other_id in found if other_id is not None]
