"""Which documents an answer rests on: those that contain it, or else those that were read last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from calibadv.rewards.turn_success import contains_answer
from calibadv.types import Document, TokenUnit

Searches = tuple[tuple[Document, ...], ...]
"""What each search of a rollout found, best first, in the order of the searches."""


class Status(StrEnum):
    """CITED: the answer stands in the document. READ: it does not, but the agent read it before it answered."""

    CITED = "cited"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Citation:
    """A document that goes with an answer, and where it was found."""

    document: Document
    search: int  # which one first found it, from 1
    rank: int  # in that search, from 1
    status: Status


def citations(answer: str | None, searches: Searches, tokens: TokenUnit = TokenUnit.WORDS) -> tuple[Citation, ...]:
    """The documents in whose title or text the answer stands, by the rule that scores turns (`contains_answer`).

    Where it stands in none ("yes", "no" and no answer at all never do): those of the last search that found any, as
    read. () where nothing was found. A document counts once, where it was first found.
    """
    found: dict[str, tuple[Document, int, int]] = {}
    for number, documents in enumerate(searches, start=1):
        for rank, document in enumerate(documents, start=1):
            found.setdefault(document.id, (document, number, rank))
    cited = [place for place in found.values() if answer is not None and _contains(place[0], answer, tokens)]
    if cited:
        return tuple(Citation(*place, Status.CITED) for place in cited)
    last: Sequence[Document] = next((documents for documents in reversed(searches) if documents), ())
    return tuple(Citation(*found[document.id], Status.READ) for document in last)


def _contains(document: Document, answer: str, tokens: TokenUnit) -> bool:
    return any(contains_answer(text, [answer], tokens) for text in (document.title, document.text))
