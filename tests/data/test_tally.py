"""Rows read, refused and left out are the rows of the file, in every format; twins and odd golds are told apart."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from calibadv.data.corpus import load_corpus, passage_id
from calibadv.data.errors import DataError
from calibadv.data.questions import load_questions
from calibadv.data.row_report import say_rows
from calibadv.data.schema import QuestionRow, write_questions
from calibadv.data.tally import Tally
from workflows import prepare_data

GOOD = {"id": "1", "question": "who?", "golden_answers": ["Ann"]}
TWINS = [
    {
        "id": "2hop__1_2",
        "question": "Whose?",
        "answer": "Ida",
        "answerable": answerable,
        "paragraphs": [{"idx": 0, "title": "Vel", "paragraph_text": text, "is_supporting": answerable}],
        "question_decomposition": [{"question": "Who?", "answer": "Bo", "paragraph_support_idx": 0}],
    }
    for answerable, text in ((False, "Vel is a town."), (True, "Bo founded Vel."))
]


def write(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".parquet":
        keys = {key: None for row in rows for key in row}  # pyarrow takes the first row's
        parquet.write_table(pa.Table.from_pylist([keys | row for row in rows]), path)
        return path
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def counted(path: Path, **how: Any) -> tuple[list[Any], Tally]:
    tally = Tally()
    questions = load_questions(path, on_bad=lambda _: None, tally=tally, **how)
    assert tally.rows == tally.read + tally.refused + tally.left_out.total()
    assert tally.read == len(questions)
    return questions, tally


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.jsonl.gz", "q.parquet"])
def test_every_row_of_a_question_file_is_counted_once(tmp_path: Path, name: str) -> None:
    rows = [
        GOOD,
        {**GOOD, "id": "2", "question": " "},
        {**GOOD, "question": "again?"},
        {**GOOD, "id": None, "question": "when?"},
        {**GOOD, "id": None, "question": "when? "},
        {**GOOD, "id": "3", "answerable": False},
        {**GOOD, "id": "4", "golden_answers": []},
    ]
    questions, tally = counted(write(tmp_path / name, rows))
    assert [question.text for question in questions] == ["who?", "when?"]
    expected = "7 rows: 2 read, 3 refused, 1 left out (repeating an earlier one), 1 left out (unanswerable)"
    assert str(tally) == expected


def test_rows_that_no_reader_can_read_are_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"id": \n\n[1]\n"K\xf6ln"\n')
    assert str(counted(path)[1]) == "4 rows: 1 read, 3 refused"
    path = tmp_path / "q.csv"
    path.write_text('question,answer\nwho?,Ann\nwhere?\n"when?,1990\nhow?,so\n,\n', encoding="utf-8")
    assert str(counted(path)[1]) == "4 rows: 2 read, 2 refused"


def test_every_row_of_a_corpus_is_counted_once(tmp_path: Path) -> None:
    rows = [*[{"title": "A", "text": "One."}] * 3, {"title": "B", "text": " "}]
    named = [{"id": "x", "title": "C", "text": "Two."}, {"id": "x", "title": "D", "text": "Three."}]
    tally = Tally()
    load_corpus(write(tmp_path / "c.jsonl", [*rows, *named]), lambda _: None, tally)
    assert str(tally) == "6 rows: 2 read, 2 refused, 2 left out (repeating an earlier one)"


@pytest.mark.parametrize("order", [TWINS, TWINS[::-1]])
@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.parquet"])
def test_the_unanswerable_twin_is_never_the_one_that_is_kept(tmp_path: Path, order: list[Any], name: str) -> None:
    path = write(tmp_path / name, order)
    (strict,) = load_questions(path)
    (kept,), tally = counted(path)
    assert strict == kept
    assert kept.gold_doc_ids == (passage_id("Vel", "Bo founded Vel."),)
    assert str(tally) == "2 rows: 1 read, 0 refused, 1 left out (unanswerable)"


@pytest.mark.parametrize("said", [False, "False", "false", 0, "0"])
def test_unanswerable_is_known_in_every_spelling(tmp_path: Path, said: Any) -> None:
    in_metadata = {**GOOD, "id": "2", "metadata": {"answerable": said}}
    squad = {**GOOD, "id": "3", "is_impossible": not said if isinstance(said, bool | int) else "True"}
    rows = [GOOD, {**GOOD, "id": "4", "answerable": said}, in_metadata, squad, {**GOOD, "id": "5", "answerable": None}]
    questions, tally = counted(write(tmp_path / "q.jsonl", rows))
    assert [question.id for question in questions] == ["q/1", "q/5"]
    assert tally.left_out == {"unanswerable": 3}
    columns_of_all = [{"answerable": None, **row} for row in rows]  # as a table has them
    assert counted(write(tmp_path / "q.jsonl", columns_of_all))[1].left_out == {"unanswerable": 3}


@pytest.mark.parametrize("order", [TWINS, TWINS[::-1]])
def test_a_twin_whose_mark_was_lost_is_known_by_the_passage_that_it_lacks(tmp_path: Path, order: list[Any]) -> None:
    rows = [{key: value for key, value in twin.items() if key != "answerable"} for twin in order]
    for twin, row in zip(order, rows, strict=True):
        at = 0 if twin["answerable"] else None
        row["question_decomposition"] = [{**twin["question_decomposition"][0], "paragraph_support_idx": at}]
    (kept,), tally = counted(write(tmp_path / "q.jsonl", rows))
    assert kept.gold_doc_ids == (passage_id("Vel", "Bo founded Vel."),)
    assert tally.left_out == {"unanswerable": 1}


def test_a_prepared_file_leaves_its_unanswerable_questions_out_too(tmp_path: Path) -> None:
    rows = [QuestionRow("a/1", "who?", ("A",), metadata={"answerable": "False"}), QuestionRow("a/2", "where?", ("B",))]
    write_questions(rows, tmp_path / "q.parquet")
    assert [question.id for question in counted(tmp_path / "q.parquet")[0]] == ["a/2"]


def test_a_file_of_unanswerable_questions_and_an_odd_word_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all its questions are marked as unanswerable"):
        load_questions(write(tmp_path / "q.jsonl", [{**GOOD, "answerable": False}]))
    with pytest.raises(DataError, match=r"line 1: 'answerable': 'maybe' is neither true nor false"):
        load_questions(write(tmp_path / "q.jsonl", [{**GOOD, "answerable": "maybe"}]))


def test_a_question_to_which_no_answer_can_score_is_named_by_id_and_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        GOOD,
        {**GOOD, "id": "2", "golden_answers": ["the", "!!!"]},
        {**GOOD, "id": "3", "golden_answers": ["A", "B"]},
    ]
    path = write(tmp_path / "q.jsonl", rows)
    _, tally = counted(path)
    assert tally.unscorable == [f"q/2 ({path}, line 2)"]
    with caplog.at_level(logging.INFO):
        say_rows("train", path, tally)
    assert f"train: {path}: 3 rows: 3 read, 0 refused" in caplog.text
    assert f"golden answers of 1 questions, so that no answer to them can score: q/2 ({path}, line 2);" in caplog.text


def test_full_width_marks_are_nothing_only_where_they_are_stripped(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [{**GOOD, "golden_answers": ["！！。"]}])
    assert counted(path)[1].unscorable == []
    assert counted(path, tokens="unspaced")[1].unscorable == [f"q/1 ({path}, line 1)"]


def test_chinese_questions_that_are_scored_by_words_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "q.jsonl", [GOOD, {**GOOD, "id": "2", "question": "谁写了《红楼梦》?"}])
    for tokens in ("words", "unspaced"):
        questions, tally = counted(path, tokens=tokens)
        assert {question.tokens for question in questions} == {tokens}
        with caplog.at_level(logging.WARNING):
            say_rows("train", path, tally, tokens)
        said = "1 of 2 questions hold text of a script without blanks" in caplog.text
        assert said is (tokens == "words")
        caplog.clear()


def test_prepare_data_says_what_became_of_every_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(tmp_path / "musique.jsonl", [*TWINS, {**GOOD, "question": " "}])
    corpus = write(
        tmp_path / "c.jsonl", [{"id": "0", "title": "A", "text": "x"}, {"id": "0", "title": "B", "text": "y"}]
    )
    with caplog.at_level(logging.INFO):
        prepare_data.main(["questions", str(source), str(tmp_path / "q.parquet"), "--skip-bad"])
        prepare_data.main(["corpus", str(corpus), str(tmp_path / "store"), "--skip-bad"])
    assert f"questions: {source}: 3 rows: 1 read, 1 refused, 1 left out (unanswerable)" in caplog.text
    assert f"corpus: {corpus}: 2 rows: 1 read, 1 refused" in caplog.text


FACTS = [{"title": "Ilo Brun", "sent_id": 0}, {"title": "Vel", "sent_id": 1}]
CONTEXT = [
    {"title": "Ilo Brun", "sentences": ["Born in Vel."]},
    {"title": "Vel", "sentences": ["A town.", "By the Sarn."]},
]
EVIDENCE = [
    {"fact": "Ilo Brun", "relation": "born in", "entity": "Vel"},
    {"fact": "Vel", "relation": "river", "entity": "Sarn"},
]


def columns(objects: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [entry[key] for entry in objects] for key in objects[0]}


def listed(objects: list[dict[str, Any]]) -> list[list[Any]]:
    return [list(entry.values()) for entry in objects]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("q.jsonl", listed),  # parquet has no lists of mixed types
        *((name, shape) for name in ("q.jsonl", "q.parquet") for shape in (list, columns, json.dumps, repr)),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_facts_contexts_and_evidences_are_read_in_every_shape(
    tmp_path: Path, shape: Any, name: str, inside: bool
) -> None:
    gold = {"supporting_facts": shape(FACTS), "context": shape(CONTEXT), "evidences": shape(EVIDENCE)}
    row = {**GOOD, "metadata": gold} if inside else {**GOOD, **gold}
    (question,) = load_questions(write(tmp_path / name, [row]))
    assert question.sub_queries == ("Ilo Brun born in", "Vel river")
    assert question.gold_doc_ids == (passage_id("Ilo Brun", "Born in Vel."), passage_id("Vel", "A town. By the Sarn."))
    assert json.loads(question.metadata["hop_answers"]) == ["Vel", "Sarn"]


@pytest.mark.parametrize("shape", [list, columns, json.dumps, repr])
@pytest.mark.parametrize("name", ["q.jsonl", "q.parquet"])
def test_musiques_paragraphs_and_hops_are_read_in_every_shape(tmp_path: Path, shape: Any, name: str) -> None:
    twin = TWINS[1]
    paragraphs = [*twin["paragraphs"], {"idx": 1, "title": "Oda", "paragraph_text": "No.", "is_supporting": False}]
    row = {**twin, "paragraphs": shape(paragraphs), "question_decomposition": shape(twin["question_decomposition"])}
    (question,) = load_questions(write(tmp_path / name, [row]))
    assert question.gold_doc_ids == (passage_id("Vel", "Bo founded Vel."),)
    assert question.sub_queries == ("Who?",)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("supporting_facts", ["AB", "CD"], "'AB' has not 2 entries"),  # two letters are no title and number
        ("supporting_facts", [{"name": "A", "sent": 0}], "has no 'title'"),
        ("supporting_facts", {"name": ["A"]}, "found {'name'"),
        ("supporting_facts", {"title": ["A", "B"], "sent_id": [0]}, "its columns have \\[1, 2\\] entries"),
        ("supporting_facts", [[None, 0]], "None is no text"),
        ("supporting_facts", "A", "found 'A'|'A' has not|'A'"),
        ("context", [{"title": "A", "text_of": "x"}], "has no 'sentences'"),
        ("context", {"A": ["One."]}, "found {'A'"),
        ("context", [["A", [["nested"]]]], "are no texts"),
        ("evidences", [{"fact": "A", "relation": "r"}], "has no 'entity'"),
        ("evidences", {"fact": ["A"], "relation": ["r"]}, "has no 'entity'"),
        ("paragraphs", {"title": "A"}, "list of objects"),
        ("question_decomposition", ["Who?"], "list of objects"),
    ],
)  # fmt: skip
def test_gold_of_another_shape_is_refused_by_its_cell(tmp_path: Path, key: str, value: Any, said: str) -> None:
    path = write(tmp_path / "q.jsonl", [GOOD, {**GOOD, "id": "2", "supporting_facts": [["A", 0]], key: value}])
    with pytest.raises(DataError, match=rf"q.jsonl, line 2: '{key}' .*({said})"):
        load_questions(path)
