"""Questions from use: what people asked the served agent, with the answers that they accepted as golden ones.

A thumb is a line of `serve.feedback` (docs/serving.md): question, answer, `rating` "up" or "down", the answer's `id`;
or an assessment of a trace (`calibadv.tracking.assessed`). A comment is free text of whoever asked, and is no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibadv.data.errors import DataError
from calibadv.data.overlap import normalised_question
from calibadv.data.preparation.prepare import Prepared, without_overlap
from calibadv.data.preparation.skipping import skip_list
from calibadv.data.questions import read_question_rows
from calibadv.data.record import Record
from calibadv.data.records import counted_records
from calibadv.data.schema import QuestionRow, write_questions
from calibadv.data.tally import Tally
from calibadv.refusals import short_repr
from calibadv.rewards.answer import normalise

RATED_AGAIN = "rated again later"
REFUSED = "answers that nobody accepted"
DISPUTED = "answers that some accept and others do not"
UNSCORABLE = "answers that cannot score"
_RATINGS = ("up", "down")


@dataclass(frozen=True, slots=True)
class Thumb:
    """What was said of one answer."""

    response_id: str
    question: str
    answer: str
    accepted: bool
    model: str  # that gave the answer


def prepare_feedback(
    source: Path,
    out: Path,
    *,
    name: str = "feedback",
    skip_bad: bool = False,
    against: Sequence[Path] = (),
    drop_overlap: bool = False,
) -> Prepared:
    """Writes the questions with an accepted answer to the parquet file `out`, ids `name/…`.

    Says which of them the files `against` ask too, as `prepare_questions` does. DataError for a line that is no thumb,
    unless `skip_bad`, and where no question is left.
    """
    with skip_list(out, skip=skip_bad) as skipped:
        tally, thumbs = Tally(), []
        for record in counted_records(source, skipped, tally):
            try:
                thumbs.append(_thumb(record))
            except DataError as error:
                skipped(error)
                tally.refused += 1
                continue
            tally.read += 1
        return write_accepted(
            thumbs, out, tally, place=str(source), name=name, against=against, drop_overlap=drop_overlap
        )


def write_accepted(
    thumbs: Sequence[Thumb],
    out: Path,
    tally: Tally,
    *,
    place: str,
    name: str = "feedback",
    against: Sequence[Path] = (),
    drop_overlap: bool = False,
) -> Prepared:
    """The same of thumbs that are at hand; `place` is where they were found, and `tally` has each of them as read."""
    rows = accepted_questions(thumbs, name, tally)
    if not rows:
        raise DataError(
            place,
            f"of {len(thumbs)} thumbs none leaves a question with an accepted answer",
            "at least one answer with a thumb up and none down",
            "Wait for more use, or write the answers into a questions file (docs/data.md).",
        )
    others = [row for other in against for row in read_question_rows(other)]
    kept, shared = without_overlap(rows, others, out, drop=drop_overlap)
    return Prepared(out, write_questions(kept, out), tally, len(shared))


def accepted_questions(thumbs: Sequence[Thumb], name: str, tally: Tally) -> list[QuestionRow]:
    """A row a question with an accepted answer, in the order in which they were first asked.

    Of an answer that was rated again its last rating holds. Questions are one if their words are
    (`normalised_question`), answers if they are equal as answers are scored (`normalise`). An answer that anybody
    refused is no golden one, however many accepted it. `tally`, which has every thumb as read, counts those that lead
    to no golden answer, by reason.
    """
    last = {thumb.response_id: thumb for thumb in thumbs}
    if repeated := len(thumbs) - len(last):
        tally.leave_out(RATED_AGAIN, repeated)
    asked: dict[str, dict[str, list[Thumb]]] = {}  # question -> answer -> its thumbs
    for thumb in last.values():
        asked.setdefault(normalised_question(thumb.question), {}).setdefault(normalise(thumb.answer), []).append(thumb)
    rows = []
    for answers in asked.values():
        golden = [given for answer, given in answers.items() if _is_golden(answer, given, tally)]
        if golden:
            rows.append(_row(golden, name))
    return rows


def _is_golden(answer: str, given: Sequence[Thumb], tally: Tally) -> bool:
    accepted = {thumb.accepted for thumb in given}
    if accepted == {True} and answer:
        return True
    reason = REFUSED if accepted == {False} else DISPUTED if len(accepted) > 1 else UNSCORABLE
    tally.leave_out(reason, len(given))
    return False


def _row(golden: Sequence[Sequence[Thumb]], name: str) -> QuestionRow:
    first = golden[0][0]
    digest = hashlib.blake2b(normalised_question(first.question).encode(), digest_size=8).hexdigest()
    given = [thumb for thumbs in golden for thumb in thumbs]
    return QuestionRow(
        id=f"{name}/{digest}",  # of the question: more feedback adds questions and answers, and renames none
        question=first.question,
        golden_answers=tuple(thumbs[0].answer for thumbs in golden),
        metadata={
            "accepted": str(len(given)),
            "models": ", ".join(sorted({thumb.model for thumb in given})),
            "responses": ", ".join(thumb.response_id for thumb in given),
        },
    )


def _thumb(record: Record) -> Thumb:
    rating = record.text("rating")
    if rating not in _RATINGS:
        raise DataError(
            record.place, f"'rating' is {short_repr(rating)}", "'up' or 'down'", "Mend 'rating' in the record."
        )
    answer = record.unicode("answer", record.need("answer", str, "'answer' as a string").strip())
    return Thumb(record.text("id"), record.text("question"), answer, rating == "up", record.text("model"))
