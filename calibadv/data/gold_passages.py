"""Questions with what is known of their gold passages in the corpus at hand, for methods whose rewards read it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calibadv.data.corpus_store import CorpusStore
from calibadv.rewards.gold_match import GoldNeed, same_passage, title_key
from calibadv.types import Document, Question

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GoldFound:
    """Questions with the gold that is known of them, and how much of it that is."""

    questions: tuple[Question, ...]
    share: float  # mean over questions of the share of their gold passages that is known, 0 where they have none
    by_id: int  # passages
    by_text: int  # passages: known by the data set's own text, or matched by title and text
    passages: int
    lacking: str  # id of the first question of which nothing is known; "": there is none

    def __str__(self) -> str:
        return (
            f"gold is known of {self.share:.1%} (mean over {len(self.questions):,} questions; {self.by_id:,} passages "
            f"by id and {self.by_text:,} by text, of {self.passages:,})"
        )


def training_questions(
    questions: Sequence[Question], corpus: Iterable[Document], need: GoldNeed | None, *, file: Path
) -> Sequence[Question]:
    """The questions of a training file, their gold as the method needs it. Says how much of it is known.

    Without a need they keep the gold ids that the corpus has, by which a run's stored groups are looked at.
    ValueError, naming the `file`, where that is less than `need.min_share`.
    """
    if need is None:
        return without_gold_texts(_with_ids_of(corpus, questions))
    found = gold_in_corpus(questions, corpus, need)
    if found.share < need.min_share:
        what = "sub-queries and texts of gold passages" if need.what == "texts" else "gold passages of the corpus"
        remedy = "or another method" if need.what == "texts" else "another method, or a judge (--method.params.judge)"
        raise ValueError(
            f"{file}: {found}, less than method.params.min_gold = {need.min_share:g}; question {found.lacking!r} has "
            f"none. This method's rewards need {what}: use a data set that has them (MuSiQue, HotpotQA, 2Wiki, the "
            f"pocket world) with a corpus that holds them, lower min_gold, {remedy}"
        )
    log.info("%s", found)
    return found.questions


def gold_in_corpus(questions: Sequence[Question], corpus: Iterable[Document], need: GoldNeed) -> GoldFound:
    """The questions with those of their gold passages that are known; see `GoldNeed`.

    "texts": the data set's own text, else that of the corpus's passage of the same id; of a question without gold
    sub-queries nothing is known. "documents": those whose id the corpus has, or of which it has a passage of the same
    title and most of the words; the others are taken away, so that nothing is held against a search for them.
    """
    here = _by_id(_ids(questions, need), corpus)
    wanted = [question for question in questions if _unknown(question, here)] if need.what == "documents" else []
    matched = _by_title_and_text(wanted, here, corpus) if wanted else set[tuple[str, str]]()
    filled, shares, by_id, by_text, lacking = [], [], 0, 0, ""
    for question in questions:
        kept = []
        for number, gold_id in enumerate(question.gold_doc_ids):
            title, text = _own(question, number)
            document = here.get(gold_id)
            if need.what == "texts" and text:
                kept.append((gold_id, title, text))
                by_text += 1
            elif document is not None:
                kept.append((gold_id, document.title, document.text))
                by_id += 1
            elif (question.id, gold_id) in matched:
                kept.append((gold_id, title, text))
                by_text += 1
        usable = bool(kept) and (need.what == "documents" or bool(question.sub_queries))
        shares.append(len(kept) / len(question.gold_doc_ids) if usable else 0.0)
        lacking = lacking or ("" if usable else question.id)
        ids, titles, texts = zip(*kept, strict=True) if kept else ((), (), ())
        filled.append(replace(question, gold_doc_ids=ids, gold_titles=titles, gold_passages=texts))
    passages = sum(len(question.gold_doc_ids) for question in questions)
    share = sum(shares) / len(shares) if shares else 0.0
    return GoldFound(tuple(filled), share, by_id, by_text, passages, lacking)


def without_gold_texts(questions: Sequence[Question]) -> list[Question]:
    """The questions without the texts of gold passages, which would travel with every row that does not need them."""
    return [replace(question, gold_titles=(), gold_passages=()) for question in questions]


def _with_ids_of(corpus: Iterable[Document], questions: Sequence[Question]) -> list[Question]:
    """The questions with those of their gold ids that the corpus has: a corpus may have ids of its own."""
    wanted = {gold_id for question in questions for gold_id in question.gold_doc_ids}
    if isinstance(corpus, CorpusStore):
        here = set(filter(corpus.has_id, wanted))
    else:
        here = wanted & {document.id for document in corpus}
    return [
        replace(question, gold_doc_ids=tuple(gold_id for gold_id in question.gold_doc_ids if gold_id in here))
        for question in questions
    ]


def _own(question: Question, number: int) -> tuple[str, str]:
    """Title and text of a gold passage as the data set has them; empty where it does not say."""
    if number >= len(question.gold_passages):
        return "", ""
    return question.gold_titles[number] if number < len(question.gold_titles) else "", question.gold_passages[number]


def _ids(questions: Sequence[Question], need: GoldNeed) -> set[str]:
    """Ids to look up: of texts only those that the data set itself does not say."""
    asked = [q for q in questions if need.what == "documents" or not q.gold_passages]
    return {gold_id for question in asked for gold_id in question.gold_doc_ids}


def _unknown(question: Question, here: Collection[str]) -> bool:
    return bool(question.gold_passages) and any(gold_id not in here for gold_id in question.gold_doc_ids)


def _by_id(wanted: set[str], corpus: Iterable[Document]) -> dict[str, Document]:
    """The wanted documents; the corpus may be larger than memory."""
    if isinstance(corpus, CorpusStore):
        corpus = [corpus.by_id(doc_id) for doc_id in wanted if corpus.has_id(doc_id)]
    return {document.id: document for document in corpus if document.id in wanted}


def _by_title_and_text(
    questions: Sequence[Question], here: Mapping[str, Document], corpus: Iterable[Document]
) -> set[tuple[str, str]]:
    """(question id, gold id) of the gold passages that some document is. Reads the corpus once, from end to end."""
    left: dict[str, list[tuple[str, str, str, str]]] = {}
    for question in questions:
        for number, gold_id in enumerate(question.gold_doc_ids):
            title, text = _own(question, number)
            if gold_id not in here and title:
                left.setdefault(title_key(title), []).append((question.id, gold_id, title, text))
    found = set()
    for document in corpus:
        for question_id, gold_id, title, text in left.get(title_key(document.title), ()):
            if (question_id, gold_id) not in found and same_passage(document, title, text):
                found.add((question_id, gold_id))
    return found
