"""Labels of searches by gold passages."""

from __future__ import annotations

from dataclasses import replace

from calibadv.rewards.gold_labels import gold_labels
from calibadv.types import Trajectory, Turn, TurnKind
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
