"""Loads question sets of every format that `question_formats` knows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from calibadv.data.errors import DataError, OnBad, refuse
from calibadv.data.question_formats import has_own_id, is_unanswerable, question_row
from calibadv.data.reading import stem_of
from calibadv.data.records import counted_records
from calibadv.data.schema import QuestionRow
from calibadv.data.tally import REPEATED, UNANSWERABLE, Tally
from calibadv.rewards.answer import can_score
from calibadv.types import Question, TokenUnit
from calibadv.unspaced import UNSPACED

log = logging.getLogger(__name__)


def load_questions(
    path: Path,
    *,
    name: str | None = None,
    on_bad: OnBad = refuse,
    tokens: TokenUnit = TokenUnit.WORDS,
    tally: Tally | None = None,
) -> list[Question]:
    """The questions of a file in its order, ids `dataset/source-id`, scored by `tokens`; see `read_question_rows`.

    `gold_doc_ids` are the ids that `load_corpus` gives the same passages.
    """
    rows = read_question_rows(path, name=name, on_bad=on_bad, tokens=tokens, tally=tally)
    return [row.to_question(tokens) for row in rows]


def scored_by(tokens: TokenUnit, questions: Iterable[Question]) -> list[Question]:
    """The questions, scored by `tokens`."""
    return [replace(question, tokens=tokens) for question in questions]


def read_question_rows(
    path: Path,
    *,
    name: str | None = None,
    fallback: str | None = None,
    on_bad: OnBad = refuse,
    tokens: TokenUnit = TokenUnit.WORDS,
    tally: Tally | None = None,
) -> Iterator[QuestionRow]:
    """The rows of a question file in its order, at least one, no id twice.

    The data set is `name`, else what a record calls its `data_source`, else `fallback`, else the file's stem. Rows that
    are wrong go to `on_bad`, a second row of one id too. Left out are questions without an id that repeat an earlier
    one with its answers, and those whose source says that they cannot be answered (`is_unanswerable`). `tally` counts
    what became of every row, and notes the questions that cannot be scored by `tokens`. A file of which no row is left
    is a `DataError` whatever `on_bad` does.
    """
    places: dict[str, str] = {}
    noted, tally, first_wrong = tally is not None, tally or Tally(), None
    for record in counted_records(path, on_bad, tally):
        try:
            if is_unanswerable(record):
                tally.left_out[UNANSWERABLE] += 1
                continue
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
            tally.refused += 1
            first_wrong = first_wrong or error
            continue
        if row.id in places:
            tally.left_out[REPEATED] += 1
            continue
        places[row.id] = record.place
        tally.read += 1
        if noted:
            _note(tally, row, record.place, tokens)
        yield row
    if not places:
        raise first_wrong or _nothing_left(path, tally)
    if repeated := tally.left_out[REPEATED]:
        log.warning("%s: left out %d questions that repeat an earlier one", path, repeated)


def _note(tally: Tally, row: QuestionRow, place: str, tokens: TokenUnit) -> None:
    """Counts what a reader of the file should know of a question that is read all the same."""
    if not can_score(row.golden_answers + row.aliases, tokens):
        tally.unscorable.append(f"{row.id} ({place})")
    tally.unspaced += UNSPACED.search(row.question) is not None


def _nothing_left(path: Path, tally: Tally) -> DataError:
    return DataError(
        str(path),
        f"all its questions are marked as unanswerable ({tally})",
        "at least one that can be answered",
        "Use the data set's answerable questions.",
    )
