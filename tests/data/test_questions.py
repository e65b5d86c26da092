"""Question sets: every format on small files, gold passages that match the corpus, every error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calibadv.data.corpus import load_corpus
from calibadv.data.errors import DataError
from calibadv.data.questions import load_questions

SHARED = Path(__file__).parents[3] / "shared" / "data"

FLASHRAG = {"id": "test_0", "question": "who sings it ", "golden_answers": ["Ann", "Ann B", "Ann"], "metadata": {}}
HOTPOT = {
    "_id": "5a7",
    "question": "Which?",
    "answer": "yes",
    "type": "comparison",
    "level": "easy",
    "supporting_facts": [["B", 1], ["A", 0], ["B", 0], ["Elsewhere", 0]],
    "context": [["A", ["One.", " Two."]], ["B", ["Three.", "Four."]], ["C", ["Five."]]],
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Who?",
    "answer": "Stanley Hall",
    "answer_aliases": ["G. Stanley Hall", "Stanley Hall"],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "A", "paragraph_text": "One  two.", "is_supporting": True},
        {"idx": 1, "title": "B", "paragraph_text": "Three.", "is_supporting": False},
    ],
    "question_decomposition": [{"id": 1, "question": "First?"}, {"id": 2, "question": "Of #1?"}],
}


def write(path: Path, value: Any) -> Path:
    """JSON, or jsonl if the name says so."""
    lines = "\n".join(json.dumps(row) for row in value) + "\n" if path.suffix == ".jsonl" else json.dumps(value)
    path.write_text(lines, encoding="utf-8")
    return path


def test_flashrag_jsonl(tmp_path: Path) -> None:
    metadata = {"type": "bridge", "hops": 2, "sub_queries": ["a", "b"], "gold_doc_ids": ["d1"], "nested": {"x": 1}}
    rows = [FLASHRAG, {**FLASHRAG, "id": "test_1", "metadata": metadata}]
    first, second = load_questions(write(tmp_path / "nq.jsonl", rows))
    assert (first.id, first.text, first.golden_answers) == ("nq/test_0", "who sings it", ("Ann", "Ann B"))
    assert (second.sub_queries, second.gold_doc_ids) == (("a", "b"), ("d1",))
    assert second.metadata == {"type": "bridge", "hops": "2"}


def test_name_replaces_the_stem(tmp_path: Path) -> None:
    assert load_questions(write(tmp_path / "train.jsonl", [FLASHRAG]), name="nq")[0].id == "nq/test_0"


def test_search_r1_parquet(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "train.parquet"
    reward_model = {"style": "rule", "ground_truth": {"target": ["Ann", "Bea"]}}
    pd.DataFrame([{"id": "train_0", "question": "who?", "data_source": "nq", "reward_model": reward_model}]).to_parquet(
        path
    )
    (question,) = load_questions(path)
    assert (question.id, question.golden_answers) == ("nq/train_0", ("Ann", "Bea"))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_hotpot_gold_passages_match_the_corpus(tmp_path: Path, suffix: str) -> None:
    (question,) = load_questions(write(tmp_path / f"hotpot{suffix}", [HOTPOT]))
    corpus = load_corpus(write(tmp_path / "corpus.json", dict(HOTPOT["context"])))
    ids = {document.title: document.id for document in corpus}
    assert question.id == "hotpot/5a7"
    assert question.golden_answers == ("yes",)
    assert question.gold_doc_ids == (ids["B"], ids["A"])
    assert (question.gold_titles, question.gold_passages) == (("B", "A"), ("Three. Four.", "One. Two."))
    assert question.sub_queries == ("B", "A", "Elsewhere")  # the titles of its supporting facts
    assert question.metadata == {"type": "comparison", "level": "easy", "hops": "3"}


def test_2wikis_evidence_triples_are_its_sub_queries(tmp_path: Path) -> None:
    record = HOTPOT | {"evidences": [["A", "founded by", "B"], ["B", "born in", "C"]]}
    (question,) = load_questions(write(tmp_path / "2wiki.json", [record]))
    assert question.sub_queries == ("A founded by", "B born in")
    assert json.loads(question.metadata["hop_answers"]) == ["B", "C"]


def test_evidence_that_is_no_triple_is_refused_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "2wiki.json", [HOTPOT | {"evidences": [["A", "founded by"]]}])
    with pytest.raises(DataError, match=r"2wiki.json, line 1, row 1: 'evidences' cannot be read"):
        load_questions(path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_musique_has_sub_queries_aliases_and_gold_passages(tmp_path: Path, suffix: str) -> None:
    (question,) = load_questions(write(tmp_path / f"musique{suffix}", [MUSIQUE]))
    corpus = load_corpus(write(tmp_path / "corpus.json", [{"title": "A", "text": "One two."}]))
    assert question.golden_answers == ("Stanley Hall", "G. Stanley Hall")
    assert question.sub_queries == ("First?", "Of #1?")
    assert question.gold_doc_ids == (corpus[0].id,)
    assert question.metadata["hops"] == "2"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", "", "no records"),
        ("q.json", "[]", "no records"),
        ("q.json", '[{"id": "1"', "line 1, row 1: malformed JSON"),
        ("q.jsonl", json.dumps(FLASHRAG) + '\n\n{"id": \n', "line 3: malformed JSON"),
        ("q.json", '"text"', "expected a JSON list"),
        ("q.jsonl", "[1]\n", "line 1: found [1]"),
        ("q.json", json.dumps([FLASHRAG, 7]), "row 2: found 7; expected a JSON object"),
        ("q.jsonl", '{"id": "1", "question": "who?"}', "line 1: no answers among the keys ['id', 'question']"),
        ("q.jsonl", '{"golden_answers": ["a"], "id": "1"}', "no key 'question'"),
        ("q.jsonl", '{"golden_answers": ["a"], "question": "who?", "id": " "}', "the id is ' '"),
        ("q.jsonl", '{"golden_answers": ["a"], "id": "1", "question": "  "}', "'question' is blank"),
        ("q.jsonl", '{"golden_answers": ["a"], "id": "1", "question": 5}', "'question' is 5"),
        ("q.jsonl", '{"golden_answers": [" "], "id": "1", "question": "who?"}', "question '1' has no golden answer"),
        ("q.jsonl", '{"golden_answers": [3], "id": "1", "question": "who?"}', "the answers are [3]"),
        ("q.jsonl", '{"golden_answers": ["a"], "id": "1", "question": "w", "metadata": [1]}', "'metadata' is [1]"),
        ("q.jsonl", f"{json.dumps(FLASHRAG)}\n{json.dumps(FLASHRAG)}\n", "line 2: id 'q/test_0' was already used in"),
        ("q.json", json.dumps([{**HOTPOT, "context": [["A"]]}]), "row 1: 'context' cannot be read"),
        ("q.json", json.dumps([{**MUSIQUE, "paragraphs": [{"is_supporting": True}]}]), "row 1: 'paragraphs' or"),
        ("q.json", json.dumps([{**MUSIQUE, "paragraphs": 3}]), "'paragraphs' is 3"),
    ],
)
def test_errors_name_the_place_and_the_value(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_questions(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "; expected " in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load_questions(tmp_path / "none.jsonl")


def test_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json.dumps({**FLASHRAG, "question": "Köln?"}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match=r"byte 0xf6 at offset \d+ is not UTF-8"):
        load_questions(path)


@pytest.mark.parametrize("name", ["musique_train", "hotpotqa_train"])
def test_real_gold_passages_are_in_the_real_corpus(name: str) -> None:
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here: the real question sets were not tried")
    questions = load_questions(SHARED / f"{name}.json")
    ids = {document.id for document in load_corpus(SHARED / f"{name}_corpus.json")}
    assert len(questions) == 100
    assert all(question.gold_doc_ids and ids.issuperset(question.gold_doc_ids) for question in questions)
