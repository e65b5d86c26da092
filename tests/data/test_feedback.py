"""Thumbs of the served agent as questions: accepted answers are golden ones, whatever else was said is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calibadv.data.errors import DataError
from calibadv.data.preparation.feedback import DISPUTED, RATED_AGAIN, REFUSED, UNSCORABLE, prepare_feedback
from calibadv.data.questions import load_questions
from calibadv.data.schema import QuestionRow, write_questions


def thumb(response: str, question: str, answer: str, rating: str = "up", **more: Any) -> dict[str, Any]:
    """A line as `serve.agent.feedback` writes it."""
    said = {"time": 1000.0, "id": response, "rating": rating, "comment": "", "model": "tiny"}
    return {**said, "question": question, "answer": answer, "documents": ["d1"], **more}


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_accepted_answers_are_golden_and_the_loader_reads_them(tmp_path: Path) -> None:
    source = written(
        tmp_path / "feedback.jsonl",
        thumb("r1", "Where was Ada born?", "Brenholt"),
        thumb("r2", "who made it", "Ilda Maren", "down", comment="It was Ada."),
        thumb("r3", "where was Ada born", "the Brenholt.", model="large"),  # the same question, the same answer
        thumb("r4", "Where was Ada born?", "Brenholt in the north"),
        thumb("r5", "Who made it?", "Ada"),
    )
    prepared = prepare_feedback(source, tmp_path / "used.parquet")
    assert (prepared.written, prepared.tally.rows, prepared.tally.read) == (2, 5, 4)
    assert prepared.tally.left_out == {REFUSED: 1}
    born, made = load_questions(prepared.path)
    assert (born.text, born.golden_answers) == ("Where was Ada born?", ("Brenholt", "Brenholt in the north"))
    assert (made.text, made.golden_answers) == ("Who made it?", ("Ada",))
    assert born.metadata == {"accepted": "3", "models": "large, tiny", "responses": "r1, r3, r4"}
    assert born.id.startswith("feedback/")
    # More of it keeps the ids of what was there.
    written(source, thumb("r9", "Who else?", "Bea"), thumb("r1", "Where was Ada born?", "Brenholt"))
    again = load_questions(prepare_feedback(source, tmp_path / "more.parquet", name="feedback").path)
    assert [question.id for question in again][1] == born.id


def test_the_last_rating_holds_and_a_disputed_answer_is_no_golden_one(tmp_path: Path) -> None:
    source = written(
        tmp_path / "feedback.jsonl",
        thumb("r1", "Who?", "Ann", "down"),
        thumb("r1", "Who?", "Ann", "up"),  # somebody thought again
        thumb("r2", "When?", "1999"),
        thumb("r3", "When?", "1999", "down"),  # somebody else
        thumb("r4", "What?", "The"),  # nothing is left of it to score by
    )
    prepared = prepare_feedback(source, tmp_path / "out.parquet")
    (question,) = load_questions(prepared.path)
    assert (question.text, question.golden_answers) == ("Who?", ("Ann",))
    assert prepared.tally.left_out == {RATED_AGAIN: 1, DISPUTED: 2, UNSCORABLE: 1}
    assert prepared.tally.rows == prepared.tally.read + prepared.tally.left_out.total() == 5


def test_what_is_no_thumb_is_refused_by_its_line_or_counted(tmp_path: Path) -> None:
    source = written(
        tmp_path / "feedback.jsonl", thumb("r1", "Who?", "Ann"), thumb("r2", "Who?", "Ann", "sideways"), {"id": "r3"}
    )
    with pytest.raises(DataError, match=r"feedback.jsonl.*2.*'rating' is 'sideways'; expected 'up' or 'down'"):
        prepare_feedback(source, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
    prepared = prepare_feedback(source, tmp_path / "out.parquet", skip_bad=True)
    assert (prepared.written, prepared.tally.refused) == (1, 2)


def test_feedback_without_an_accepted_answer_says_so(tmp_path: Path) -> None:
    source = written(tmp_path / "feedback.jsonl", thumb("r1", "Who?", "Ann", "down"))
    with pytest.raises(DataError, match="of 1 thumbs none leaves a question with an accepted answer"):
        prepare_feedback(source, tmp_path / "out.parquet")


def test_questions_that_a_test_set_asks_are_found_and_left_out(tmp_path: Path) -> None:
    write_questions([QuestionRow("nq/1", "who?", ("Ann",))], tmp_path / "test.parquet")
    source = written(tmp_path / "feedback.jsonl", thumb("r1", "Who?", "Ann"), thumb("r2", "When?", "1999"))
    tested = [tmp_path / "test.parquet"]
    prepared = prepare_feedback(source, tmp_path / "out.parquet", against=tested, drop_overlap=True)
    assert (prepared.shared, [question.text for question in load_questions(prepared.path)]) == (1, ["When?"])
