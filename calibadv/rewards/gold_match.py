"""Which passage of a corpus is a gold passage of a question, where the corpus has its own ids and its own edition.

A data set's gold passages are known by its own ids (`data.passages.passage_id`). A corpus such as wiki-18 numbers its
passages, cuts articles every hundred words, and is of another year.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from calibadv.rewards.answer import normalise
from calibadv.types import Document, Group, Question, TokenUnit

# Of the shorter text's distinct words (our decision). Of 188 pairs of MuSiQue's passages with one title 149 share fewer
# (other paragraphs of an article) and 35 share 0.6 or more (editions of one paragraph).
MIN_OVERLAP = 0.5


@dataclass(frozen=True, slots=True)
class GoldNeed:
    """What a method's rewards read of gold passages, and the share of them below which training is refused.

    "texts": sub-queries, and what gold passages say; "documents": which of the corpus's passages they are.
    """

    what: Literal["texts", "documents"]
    min_share: float  # over training questions, see `data.gold_passages`

    def __post_init__(self) -> None:
        if not 0 <= self.min_share <= 1:
            raise ValueError(f"min_gold is {self.min_share}, expected a share in [0, 1] (0 refuses nothing)")


def title_key(title: str) -> str:
    """A title as it is compared: lower case, without quotation marks around it, white space squeezed."""
    return " ".join(title.casefold().split()).strip("\"'“”")


def overlap(one: str, other: str) -> float:
    """Share of the distinct normalised words of the shorter text that the other has too, in [0, 1]; 0 without words.

    In scripts without blanks between words a character is one.
    """
    ours, theirs = (set(normalise(text, TokenUnit.UNSPACED).split()) for text in (one, other))
    return len(ours & theirs) / min(len(ours), len(theirs)) if ours and theirs else 0.0


def same_passage(document: Document, title: str, text: str) -> bool:
    """Whether the document is the gold passage of that title and text: equal titles, and most of the words."""
    same_title = bool(title) and title_key(document.title) == title_key(title)
    return same_title and overlap(document.text, text) >= MIN_OVERLAP


def gold_found(question: Question, document_id: str, document: Document | None) -> list[int]:
    """The question's gold passages, by number, that the document is: by id, or by `same_passage` where it is given."""
    texts = dict(enumerate(zip(question.gold_titles, question.gold_passages, strict=False)))
    return [
        number
        for number, gold_id in enumerate(question.gold_doc_ids)
        if gold_id == document_id
        or (document is not None and number in texts and same_passage(document, *texts[number]))
    ]


def gold_documents(group: Group, documents: Mapping[str, Document]) -> frozenset[str]:
    """Ids of the documents that the group retrieved and that are gold passages of its question, by `gold_found`."""
    return frozenset(doc for doc in group.doc_ids if gold_found(group.question, doc, documents.get(doc)))
