"""Finds questions that stand in two sets: an evaluation on questions that were trained on says nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from calibadv.data.schema import QuestionRow


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


def shared_questions(rows: Iterable[QuestionRow], others: Iterable[QuestionRow]) -> list[Shared]:
    """The rows whose normalised question `others` ask too, each with the first of these; in the rows' order."""
    first_of: dict[str, str] = {}
    for other in others:
        first_of.setdefault(normalised_question(other.question), other.id)
    found = ((row, first_of.get(normalised_question(row.question))) for row in rows)
    return [Shared(row.id, other_id, row.question) for row, other_id in found if other_id is not None]
