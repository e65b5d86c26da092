"""Labels of searches by gold passages."""

from __future__ import annotations

from dataclasses import replace

from calibadv.rewards.gold_labels import gold_labels
from calibadv.types import Document, Trajectory, Turn, TurnKind
from tests.build import QUESTION, group, trajectory, turn

GOLD = replace(QUESTION, gold_doc_ids=("g1", "g2"))
ANSWER = turn(kind=TurnKind.ANSWER)


def rollout(*turns: Turn) -> Trajectory:
    return replace(trajectory(0.0, [1]), turns=turns)


def test_a_search_is_good_if_it_finds_a_gold_passage_that_is_new_to_its_rollout() -> None:
    searches = [turn(docs=docs) for docs in (("x", "g1"), ("g1",), ("g1", "g2"), ("y",), ())]
    assert gold_labels(group(rollout(*searches, ANSWER), question=GOLD), {}) == [[1, -1, 1, -1, -1, 0]]


def test_what_another_rollout_found_is_still_new() -> None:
    found = rollout(turn(docs=["g1"]), ANSWER)
    assert gold_labels(group(found, found, question=GOLD), {}) == [[1, 0], [1, 0]]


def test_void_turns_have_no_label() -> None:
    assert gold_labels(group(rollout(turn(kind=TurnKind.VOID)), question=GOLD), {}) == [[0]]


def test_a_question_without_gold_passages_labels_nothing() -> None:
    assert gold_labels(group(rollout(turn(docs=["g1"]), ANSWER)), {}) == [[0, 0]]


def test_a_corpus_with_its_own_ids_is_matched_by_title_and_text() -> None:
    question = replace(
        QUESTION,
        gold_doc_ids=("hash1", "hash2"),
        gold_titles=("Ada Lovelace", "Oslo"),
        gold_passages=("Ada Lovelace was an English mathematician and writer.", "Oslo is the capital of Norway."),
    )
    documents = {
        "17": Document("17", '"Ada Lovelace"', "an English mathematician and writer, chiefly known for"),
        "18": Document("18", "Ada Lovelace", "She died of cancer in London at thirty six."),  # another part of it
        "19": Document("19", "Oslo, Norway", "Oslo is the capital of Norway."),  # another title
        "20": Document("20", "oslo", "Oslo is the capital of Norway and its most populous city."),
    }
    searches = [turn(docs=docs) for docs in (("18",), ("17",), ("19",), ("20", "17"))]
    assert gold_labels(group(rollout(*searches, ANSWER), question=question), documents) == [[-1, 1, -1, 1, 0]]


def test_two_chunks_of_a_gold_passage_are_found_once() -> None:
    question = replace(
        QUESTION, gold_doc_ids=("h",), gold_titles=("Oslo",), gold_passages=("Oslo is the capital of Norway.",)
    )
    chunks = {"1": Document("1", "Oslo", "Oslo is the capital"), "2": Document("2", "Oslo", "capital of Norway")}
    found = rollout(turn(docs=["1"]), turn(docs=["2"]), ANSWER)
    assert gold_labels(group(found, question=question), chunks) == [[1, -1, 0]]
