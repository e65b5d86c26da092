"""What each format of questions becomes: one row with stable ids, all answers, hops, type and gold."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from calibadv.data.corpus import passage_id
from calibadv.data.errors import DataError
from calibadv.data.questions import load_questions, read_question_rows
from calibadv.data.schema import COLUMNS, QuestionRow, question_schema, write_questions

SHARED = Path(__file__).parents[3] / "shared" / "data"

FLASHRAG_HOTPOT = {
    "id": "train_0",
    "question": "Which?",
    "golden_answers": ["yes"],
    "metadata": {
        "type": "comparison",
        "level": "easy",
        "supporting_facts": {"title": ["B", "A", "B"], "sent_id": [1, 0, 0]},
        "context": {"title": ["A", "B"], "sentences": [["One.", " Two."], ["Three."]]},
    },
}
FLASHRAG_MUSIQUE = {
    "id": "dev_0",
    "question": "Who?",
    "golden_answers": ["Stanley Hall", "G. Stanley Hall"],
    "metadata": {
        "answerable": True,
        "question_decomposition": [
            {"question": "First?", "support_paragraph": {"title": "B", "paragraph_text": "Three."}},
            {"question": "Of #1?", "support_paragraph": {"title": "A", "paragraph_text": "One."}},
        ],
    },
}
VERL = {
    "data_source": "searchR1_nq",
    "prompt": [{"role": "system", "content": "Search."}, {"role": "user", "content": "Answer. Question: who sings?\n"}],
    "ability": "fact-reasoning",
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Ann", "Bea"]}},
    "extra_info": {"index": 0, "split": "train"},
    "metadata": None,
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path, **how: Any) -> list[QuestionRow]:
    return list(read_question_rows(path, **how))


def test_flashrag_keeps_hotpots_gold_in_columns(tmp_path: Path) -> None:
    (row,) = rows_of(write(tmp_path / "hotpotqa.jsonl", FLASHRAG_HOTPOT))
    assert row == QuestionRow(
        id="hotpotqa/train_0",
        question="Which?",
        golden_answers=("yes",),
        hops=2,
        type="comparison",
        gold_doc_ids=(passage_id("B", "Three."), passage_id("A", "One. Two.")),
        gold_titles=("B", "A"),
        gold_passages=("B\nThree.", "A\nOne. Two."),
        sub_queries=("B", "A"),
        metadata={"level": "easy"},
    )


def test_flashrag_calls_2wikis_sentences_content_and_has_evidence_triples(tmp_path: Path) -> None:
    metadata = {
        **FLASHRAG_HOTPOT["metadata"],  # type: ignore[dict-item]
        "context": {"title": ["A", "B"], "content": [["One.", "Two."], ["Three."]]},
        "evidences": {"fact": ["A", "B"], "relation": ["founded by", "born in"], "entity": ["B", "C"]},
    }
    (row,) = rows_of(write(tmp_path / "2wiki.jsonl", {**FLASHRAG_HOTPOT, "metadata": metadata}))
    assert row.gold_doc_ids == (passage_id("B", "Three."), passage_id("A", "One. Two."))
    assert row.sub_queries == ("A founded by", "B born in")
    assert row.hops == 2


def test_facts_without_their_passages_keep_their_titles(tmp_path: Path) -> None:
    metadata = {**FLASHRAG_HOTPOT["metadata"], "context": {"title": [], "sentences": []}}  # type: ignore[dict-item]
    (row,) = rows_of(write(tmp_path / "hotpotqa.jsonl", {**FLASHRAG_HOTPOT, "metadata": metadata}))
    assert (row.gold_titles, row.gold_doc_ids) == (("B", "A"), ())


def test_flashrag_keeps_musiques_passages_in_its_hops(tmp_path: Path) -> None:
    (row,) = rows_of(write(tmp_path / "musique.jsonl", FLASHRAG_MUSIQUE))
    assert row.golden_answers == ("Stanley Hall", "G. Stanley Hall")
    assert row.gold_doc_ids == (passage_id("B", "Three."), passage_id("A", "One."))
    assert (row.gold_titles, row.sub_queries, row.hops) == (("B", "A"), ("First?", "Of #1?"), 2)
    assert row.metadata == {"answerable": "True"}
    assert row.type is None  # its id is no shape of reasoning


def test_musiques_original_is_ordered_by_hop_and_typed_by_its_id(tmp_path: Path) -> None:
    record = {
        "id": "3hop1__1_2_3",
        "question": "Who?",
        "answer": "Hall",
        "answer_aliases": ["G. Hall", "Hall"],
        "paragraphs": [
            {"idx": 0, "title": "A", "paragraph_text": "One.", "is_supporting": True},
            {"idx": 1, "title": "B", "paragraph_text": "Two.", "is_supporting": False},
            {"idx": 2, "title": "C", "paragraph_text": "Three.", "is_supporting": True},
        ],
        "question_decomposition": [
            {"question": "First?", "paragraph_support_idx": 2},
            {"question": "Second?", "paragraph_support_idx": 0},
        ],
    }
    (row,) = rows_of(write(tmp_path / "musique.jsonl", record))
    assert (row.golden_answers, row.aliases) == (("Hall",), ("G. Hall",))
    assert row.gold_titles == ("C", "A")
    assert (row.type, row.hops) == ("3hop1", 2)


def test_verl_parquet_has_its_question_in_the_prompt_and_an_id_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    other = {**VERL, "extra_info": {"index": 1, "split": "train", "question": "who dances?"}}
    parquet.write_table(pa.Table.from_pylist([VERL, other]), path)
    first, second = rows_of(path)
    assert (first.question, second.question) == ("who sings?", "who dances?")
    assert first.golden_answers == ("Ann", "Bea")
    assert first.id.startswith("nq/")
    assert first.id != second.id
    parquet.write_table(pa.Table.from_pylist([other, VERL]), path)
    assert [row.id for row in rows_of(path)] == [second.id, first.id]  # never a row number


def test_the_question_of_a_prompt_follows_the_last_mark_of_the_last_user_message(tmp_path: Path) -> None:
    said = [
        "Question: who dances?",
        "Question: which?",
        "As in Question: who? Answer: Ann. Question: who sings?",
        "Ann",
    ]
    prompt = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, said, strict=True)]
    (row,) = rows_of(write(tmp_path / "train.jsonl", {**VERL, "prompt": prompt}))
    assert row.question == "who sings?"


def test_a_record_s_own_values_come_first_and_each_answer_and_alias_once(tmp_path: Path) -> None:
    record = {
        "id": " 7 ",
        "question": "who?",
        "golden_answers": None,
        "answers": ["Ann", "Bea", "Ann"],
        "aliases": ["Anna", "Bea"],
        "answer_aliases": ["Anna"],
        "type": "own",
        "metadata": {"type": "other", "level": "easy"},
    }
    (row,) = rows_of(write(tmp_path / "set.jsonl", record))
    assert (row.id, row.type, row.metadata) == ("set/7", "own", {"level": "easy"})
    assert (row.golden_answers, row.aliases) == (("Ann", "Bea"), ("Anna",))


def test_what_a_record_says_of_being_answerable_wins_over_a_passage_that_is_missing(tmp_path: Path) -> None:
    hops = [{"question": "First?", "paragraph_support_idx": None}]
    paragraphs = [{"idx": 0, "title": "A", "paragraph_text": "One.", "is_supporting": True}]
    record = {"question": "Who?", "answer": "Hall", "paragraphs": paragraphs, "question_decomposition": hops}
    assert len(rows_of(write(tmp_path / "said.jsonl", {**record, "answerable": True}))) == 1
    with pytest.raises(DataError):
        rows_of(write(tmp_path / "unsaid.jsonl", record))


def test_two_sets_in_one_search_r1_file_do_not_share_ids(tmp_path: Path) -> None:
    rows = [
        {"id": "train_0", "question": "who?", "golden_answers": ["A"], "data_source": s} for s in ("nq", "hotpotqa")
    ]
    path = write(tmp_path / "train.jsonl", *rows)
    assert [row.id for row in rows_of(path)] == ["nq/train_0", "hotpotqa/train_0"]
    with pytest.raises(DataError, match="id 'mix/train_0' was already used"):
        rows_of(path, name="mix")


def test_a_plain_table_needs_question_and_answer_only(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('question,answer,topic,hops\nwho?,"[""A"", ""B""]",music,2\nwhere?,C,,\n', encoding="utf-8")
    first, second = rows_of(path, fallback="quiz")
    assert first.id.startswith("quiz/")
    assert (first.golden_answers, first.hops, first.metadata) == (("A", "B"), 2, {"topic": "music"})
    assert (second.golden_answers, second.hops, second.metadata) == (("C",), None, {})


def test_a_repeated_question_without_an_id_is_kept_once_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"question": "who?", "answer": "A"}
    path = write(tmp_path / "q.jsonl", row, {**row, "question": "who? "}, {**row, "answer": "B"})
    with caplog.at_level(logging.WARNING):
        assert [found.golden_answers for found in rows_of(path)] == [("A",), ("B",)]
    assert "left out 1 questions" in caplog.text


def test_what_is_prepared_reads_back_as_it_was_and_trains(tmp_path: Path) -> None:
    source = write(tmp_path / "hotpotqa.jsonl", FLASHRAG_HOTPOT, {**FLASHRAG_HOTPOT, "id": "train_1", "metadata": {}})
    rows = rows_of(source)
    prepared = tmp_path / "train.parquet"
    assert write_questions(iter(rows), prepared) == 2
    assert rows_of(prepared, name="other") == rows  # ids are not changed again
    assert load_questions(prepared) == load_questions(source)
    assert parquet.read_schema(prepared) == question_schema()
    assert tuple(question_schema().names) == COLUMNS
    assert list(tmp_path.glob("*.partial")) == []


def test_a_failed_writing_leaves_no_file(tmp_path: Path) -> None:
    row = QuestionRow("a/1", "who?", ("A",))

    def breaks() -> Any:
        yield row
        raise DataError("f, line 2", "x", "y", "z.")

    with pytest.raises(DataError):
        write_questions(breaks(), tmp_path / "q.parquet")
    assert list(tmp_path.iterdir()) == []


def test_whole_numbers_that_pandas_has_made_floats_are_whole_numbers(tmp_path: Path) -> None:
    given = [{"id": 7, "question": "who?", "answer": "A", "hops": 2}, {"question": "where?", "answer": "B"}]
    frame = pd.DataFrame(given)
    assert frame["hops"].dtype == frame["id"].dtype == "float64"
    frame.to_parquet(tmp_path / "q.parquet")
    frame.to_csv(tmp_path / "q.csv", index=False)
    assert [row.hops for row in rows_of(tmp_path / "q.csv")] == [2, None]
    first, second = rows_of(tmp_path / "q.parquet")
    assert (first.id, first.hops, second.hops) == ("q/7", 2, None)
    write_questions([first, second], tmp_path / "ours.parquet")
    pd.read_parquet(tmp_path / "ours.parquet").to_parquet(tmp_path / "again.parquet")
    assert rows_of(tmp_path / "again.parquet") == [first, second]


@pytest.mark.parametrize("column", ["question", "aliases", "hops"])
def test_a_missing_column_of_a_prepared_file_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "q.parquet"
    write_questions([QuestionRow("a/1", "who?", ("A",))], path)
    parquet.write_table(parquet.read_table(path).drop_columns([column]), path)
    with pytest.raises(DataError, match=rf"q.parquet, row 1: no column '{column}' .*prepare_data"):
        rows_of(path)


def test_missing_columns_of_a_table_are_named(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("id,query,answer\n1,who?,A\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"q.csv, line 2: no key 'question' among \['answer', 'id', 'query'\]"):
        rows_of(path)
    with pytest.raises(DataError, match="no key 'question'"):  # no row is left: skipping does not help
        rows_of(path, on_bad=lambda _: None)


def test_bad_rows_and_taken_ids_are_told_and_left_out(tmp_path: Path) -> None:
    good = {"id": "1", "question": "who?", "golden_answers": ["A"]}
    rows = [good, {**good, "id": "2", "question": " "}, {**good, "question": "again?"}, {**good, "id": "4"}]
    path = write(tmp_path / "q.jsonl", *rows)
    told: list[str] = []
    kept = rows_of(path, on_bad=lambda error: told.append(str(error)))
    assert [row.id for row in kept] == ["q/1", "q/4"]
    assert [" ".join(said.split()[1:3]) for said in told] == ["line 2:", "line 3:"]
    assert f"'q/1' was already used in {path}, line 1" in told[1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"question": "wh\ud800?"}, "'question' holds '\\ud800', half a character, at 2"),
        ({"golden_answers": ["\udfff"]}, "'answers' holds '\\udfff'"),
        ({"hops": "two"}, "'hops' is 'two'; expected a whole number"),
        ({"hops": 2.5}, "'hops' is 2.5; expected a whole number"),
        ({"hops": True}, "'hops' is True; expected a whole number"),
        ({"id": 2.5}, "the id is 2.5; expected a string or a number"),
        ({"metadata": {"sub_queries": "one"}}, "'sub_queries' is 'one'; expected a list of strings"),
        ({"golden_answers": None, "reward_model": {}}, "question '1' has no golden answer"),
    ],
)
def test_odd_values_are_refused_with_their_place(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "q.jsonl", {"id": "1", "question": "who?", "golden_answers": ["A"], **fields})
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert f"{path}, line 1: {said}" in str(caught.value)


@pytest.mark.parametrize(("name", "types"), [("musique_train", {"2hop", "3hop1"}), ("hotpotqa_train", {"bridge"})])
def test_real_sets_survive_preparation(tmp_path: Path, name: str, types: set[str]) -> None:
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here: the real question sets were not tried")
    rows = rows_of(SHARED / f"{name}.json")
    write_questions(rows, tmp_path / "q.parquet")
    assert rows_of(tmp_path / "q.parquet") == rows
    assert len(rows) == 100
    assert types <= {row.type for row in rows}
    assert all(row.hops and row.gold_titles and row.sub_queries for row in rows)
