"""Loads question sets of every format that `question_formats` knows, and fills in gold passages from a corpus."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from calibadv.data.corpus_store import CorpusStore
from calibadv.data.errors import DataError, OnBad, refuse
from calibadv.data.question_formats import has_own_id, question_row
from calibadv.data.reading import stem_of
from calibadv.data.records import iter_records
from calibadv.data.schema import QuestionRow
from calibadv.types import Document, Question

log = logging.getLogger(__name__)


def load_questions(path: Path, *, name: str | None = None, on_bad: OnBad = refuse) -> list[Question]:
    """The questions of a file in its order, ids `dataset/source-id`; see `read_question_rows`.

    `gold_doc_ids` are the ids that `load_corpus` gives the same passages.
    """
    return [row.to_question() for row in read_question_rows(path, name=name, on_bad=on_bad)]


def read_question_rows(
    path: Path, *, name: str | None = None, fallback: str | None = None, on_bad: OnBad = refuse
) -> Iterator[QuestionRow]:
    """The rows of a question file in its order, at least one, no id twice.

    The data set is `name`, else what a record calls its `data_source`, else `fallback`, else the file's stem. Rows that
    are wrong go to `on_bad`, a second row of one id too; a question without an id that repeats an earlier one, with its
    answers, is left out with a warning. A file of which no row is left is a `DataError` whatever `on_bad` does.
    """
    places: dict[str, str] = {}
    repeated, first_wrong = 0, None
    for record in iter_records(path, on_bad):
        try:
            row = question_row(record, name, fallback or stem_of(path))
            if row.id in places and has_own_id(record):
                raise DataError(
                    record.place,
                    f"id {row.id!r} was already used in {places[row.id]}",
                    "every question to have an id of its own",
                    "Drop or rename one of the two.",
                )
        except DataError as error:
            on_bad(error)
            first_wrong = first_wrong or error
            continue
        if row.id in places:
            repeated += 1
            continue
        places[row.id] = record.place
        yield row
    if not places:
        assert first_wrong is not None
        raise first_wrong
    if repeated:
        log.warning("%s: left out %d questions that repeat an earlier one", path, repeated)


def with_gold_passages(questions: Sequence[Question], corpus: Iterable[Document]) -> list[Question]:
    """The questions with `gold_passages` filled in from the corpus, for methods whose rewards read them.

    ValueError for a question without gold sub-queries or passages, or with one that the corpus does not hold.
    """
    texts = _texts({doc_id for question in questions for doc_id in question.gold_doc_ids}, corpus)
    filled = []
    for question in questions:
        if not question.sub_queries or not question.gold_doc_ids:
            raise ValueError(
                f"question {question.id!r} has no gold sub-queries or no gold passages, which this method's rewards "
                "need: use a data set that has them (MuSiQue, HotpotQA, 2Wiki, the pocket world) or another method"
            )
        missing = [doc_id for doc_id in question.gold_doc_ids if doc_id not in texts]
        if missing:
            raise ValueError(
                f"gold passage {missing[0]!r} of question {question.id!r} is not in the corpus: use the corpus that "
                "belongs to the questions"
            )
        filled.append(replace(question, gold_passages=tuple(texts[doc_id] for doc_id in question.gold_doc_ids)))
    return filled


def _texts(wanted: set[str], corpus: Iterable[Document]) -> dict[str, str]:
    """Title and text of the wanted documents; the corpus may be larger than memory."""
    if isinstance(corpus, CorpusStore):
        corpus = [corpus.by_id(doc_id) for doc_id in wanted if corpus.has_id(doc_id)]
    return {document.id: f"{document.title}\n{document.text}" for document in corpus if document.id in wanted}
