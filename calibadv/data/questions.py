"""Loads question sets of every format that `question_formats` knows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from calibadv.data.errors import DataError, OnBad, refuse
from calibadv.data.question_formats import has_own_id, question_row
from calibadv.data.reading import stem_of
from calibadv.data.records import iter_records
from calibadv.data.schema import QuestionRow
from calibadv.types import Question

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
