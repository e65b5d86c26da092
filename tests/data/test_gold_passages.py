"""What is known of gold passages in a corpus: by id, by the data set's own text, by title and text."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from calibadv.data.corpus import load_corpus
from calibadv.data.gold_passages import gold_in_corpus, training_questions
from calibadv.data.passages import passage_id
from calibadv.data.questions import load_questions
from calibadv.rewards.gold_match import GoldNeed
from calibadv.types import Document, Question
from tests.build import jsonl

TEXTS, DOCUMENTS = GoldNeed("texts", 0.5), GoldNeed("documents", 0.5)
OWN = Question(
    "d/1",
    "q",
    ("a",),
    sub_queries=("s",),
    gold_doc_ids=("h1", "h2"),
    gold_titles=("One", "Two"),
    gold_passages=("first of all passages", "second of all passages"),
)
WIKI = [  # ids of its own, cut elsewhere
    Document("0", "Zero", "nothing"),
    Document("1", "one", "first of all passages and what comes after it"),
    Document("2", "Two", "a later part of the article"),
]


def test_texts_are_the_data_sets_own_whatever_the_corpus() -> None:
    found = gold_in_corpus([OWN], WIKI, TEXTS)
    assert found.questions == (OWN,)
    assert (found.share, found.by_id, found.by_text, found.lacking) == (1.0, 0, 2, "")


def test_texts_of_a_data_set_without_them_are_read_from_the_corpus_by_id() -> None:
    question = replace(OWN, gold_doc_ids=("2", "1", "none"), gold_titles=(), gold_passages=())
    found = gold_in_corpus([question], WIKI, TEXTS)
    assert found.questions[0].gold_passages == (WIKI[2].text, WIKI[1].text)
    assert found.questions[0].gold_titles == ("Two", "one")
    assert (found.share, found.by_id, found.passages) == (pytest.approx(2 / 3), 2, 3)


def test_without_sub_queries_nothing_is_known_of_texts() -> None:
    found = gold_in_corpus([OWN, replace(OWN, id="d/2", sub_queries=())], WIKI, TEXTS)
    assert (found.share, found.lacking) == (0.5, "d/2")


def test_documents_are_matched_by_title_and_text_and_the_others_are_taken_away() -> None:
    found = gold_in_corpus([OWN], WIKI, DOCUMENTS)
    (question,) = found.questions
    assert (question.gold_doc_ids, question.gold_titles) == (("h1",), ("One",))
    assert question.gold_passages == ("first of all passages",)
    assert (found.share, found.by_id, found.by_text, found.passages) == (0.5, 0, 1, 2)


def test_documents_of_the_same_id_need_no_text() -> None:
    question = replace(OWN, gold_doc_ids=("0", "2"), gold_titles=(), gold_passages=(), sub_queries=())
    found = gold_in_corpus([question], WIKI, DOCUMENTS)
    assert found.questions[0].gold_doc_ids == ("0", "2")
    assert (found.share, found.by_id) == (1.0, 2)


def test_the_share_is_a_mean_over_questions_and_one_without_gold_counts_as_none() -> None:
    bare = Question("d/3", "q", ("a",))
    found = gold_in_corpus([OWN, bare], WIKI, DOCUMENTS)
    assert (found.share, found.lacking) == (0.25, "d/3")
    assert found.questions[1] == bare


HOTPOT = {
    "_id": "5a7",
    "question": "Which?",
    "answer": "yes",
    "supporting_facts": [["One", 0], ["Two", 0]],
    "context": [["One", ["First of all passages."]], ["Two", ["Second of all passages."]]],
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    train, corpus = tmp_path / "hotpotqa.json", tmp_path / "wiki.jsonl"
    train.write_text(json.dumps([HOTPOT]))
    rows = [{"id": d.id, "title": d.title, "text": d.text} for d in WIKI]
    jsonl(corpus, *rows)
    return train, corpus


def trained(files: tuple[Path, Path], need: GoldNeed | None) -> Sequence[Question]:
    train, corpus = files
    return training_questions(load_questions(train), load_corpus(corpus), need, file=train)


def test_hotpotqa_trains_stepsearch_on_a_corpus_with_its_own_ids(files: tuple[Path, Path]) -> None:
    (question,) = trained(files, TEXTS)
    assert question.gold_doc_ids == (
        passage_id("One", "First of all passages."),
        passage_id("Two", "Second of all passages."),
    )
    assert question.gold_passages == ("First of all passages.", "Second of all passages.")
    assert question.sub_queries == ("One", "Two")


def test_what_is_known_is_said_once(files: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "calibadv"):
        trained(files, DOCUMENTS)
    assert len(caplog.records) == 1
    assert "gold is known of 50.0% (mean over 1 questions; 0 passages by id and 1 by text, of 2)" in caplog.text


def test_too_little_is_refused_with_the_share_the_setting_and_a_question(files: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"known of 50.0%.* less than method.params.min_gold = 0.6") as refused:
        trained(files, replace(DOCUMENTS, min_share=0.6))
    assert "\n" not in str(refused.value)


def test_a_method_that_reads_no_gold_gets_no_texts(files: tuple[Path, Path]) -> None:
    (question,) = trained(files, None)
    assert (question.gold_titles, question.gold_passages) == ((), ())
    assert question.gold_doc_ids == ()  # hashes, and the corpus has ids of its own


def test_ids_that_the_corpus_has_stay_for_a_method_that_reads_no_gold() -> None:
    here = replace(OWN, gold_doc_ids=("h1", "2", "0"))
    (question,) = training_questions([here], WIKI, None, file=Path("train.jsonl"))
    assert question.gold_doc_ids == ("2", "0")
