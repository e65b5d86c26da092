"""StepSearch's rewards on groups small enough to compute by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.rewards.step_search import (
    information_gains,
    key_score,
    redundancies,
    step_search_rewards,
    tfidf_cosines,
)
from calibadv.types import Document, Question, Trajectory, TurnKind
from tests.build import group, trajectory

DOCUMENTS = {
    "fox": Document("fox", "", "red fox"),
    "hen": Document("hen", "", "white hen"),
    "sea": Document("sea", "", "deep sea"),
}
QUESTION = Question(
    "test/q", "who?", ("Ada",), sub_queries=("who wrote Faust", "who was Marx"), gold_passages=("red fox", "white hen")
)


def searched(
    *docs: list[str], queries: tuple[str, ...] = (), reward: float = 0.8, answer: str | None = "a"
) -> Trajectory:
    """A search for each list of documents, then an answer."""
    plain = trajectory(reward, [2] * len(docs) + [3], docs)
    turns = [replace(t, query=query) for t, query in zip(plain.turns, queries, strict=False)]
    return replace(plain, turns=(*turns, *plain.turns[len(turns) :]), answer=answer)


def rewards_of(rolled: Trajectory, question: Question = QUESTION, key_weight: float = 0.618) -> list[float]:
    [row] = step_search_rewards(group(rolled, question=question), DOCUMENTS, key_weight=key_weight)
    return list(row)


def test_each_new_gold_passage_is_half_of_the_gain_where_there_are_two() -> None:
    assert rewards_of(searched(["fox"], ["hen"]))[:2] == pytest.approx([0.5, 0.5])


def test_titles_have_no_part_in_it() -> None:
    documents = {"fox": Document("fox", "white hen", "red fox")}
    [row] = step_search_rewards(group(searched(["fox"]), question=QUESTION), documents)
    assert row[0] == pytest.approx(0.5)


def test_finding_the_same_again_gains_nothing_and_is_redundant() -> None:
    assert rewards_of(searched(["fox"], ["fox", "hen"], ["fox", "hen"]))[:3] == pytest.approx([0.5, 0.5 - 0.5, -1.0])


def test_a_search_without_documents_or_without_a_related_one_has_nothing() -> None:
    assert rewards_of(searched([], ["sea"]))[:2] == [0.0, 0.0]


def test_the_answer_has_f1_and_the_weighed_key_score() -> None:
    rolled = searched(["fox"], ["hen"], queries=("who wrote Faust", "Marx"), reward=0.8)
    # The first sub-query is asked word for word; of "Marx" and the second's three words one is common: F1 = 0.5.
    assert rewards_of(rolled)[-1] == pytest.approx(0.8 + 0.618 * 0.75)
    assert rewards_of(rolled, key_weight=0.0)[-1] == 0.8


def test_the_format_reward_has_no_part_in_it() -> None:
    rolled = searched(["fox"], reward=0.8)
    assert rewards_of(replace(rolled, format_reward=0.0, reward=0.0)) == rewards_of(rolled)


def test_without_a_closing_answer_there_is_minus_one_and_no_step_reward() -> None:
    rolled = searched(["fox"], ["hen"], answer=None)
    assert rewards_of(rolled) == [0.0, 0.0, -1.0]


def test_a_void_turn_in_between_has_nothing() -> None:
    rolled = searched(["fox"], [], ["hen"])
    void = replace(rolled.turns[1], kind=TurnKind.VOID, query=None)
    assert rewards_of(replace(rolled, turns=(rolled.turns[0], void, *rolled.turns[2:])))[:3] == pytest.approx(
        [0.5, 0, 0.5]
    )


def test_a_question_without_gold_keeps_the_answer_alone() -> None:
    bare = replace(QUESTION, sub_queries=(), gold_passages=())
    assert rewards_of(searched(["fox"], ["fox"], reward=0.8), bare) == [0.0, 0.0, 0.8]


def test_each_query_goes_to_the_sub_query_it_fits_best() -> None:
    # "who wrote Faust" has F1 1 with the first and 1/3 with the second, where it does not count; "sea" fits neither.
    assert key_score(["who wrote Faust", "sea"], QUESTION.sub_queries) == pytest.approx(1 / 2)
    # "Marx" has F1 1/2 with the second; "Faust" 1/2 with the first.
    assert key_score(["Marx", "Faust"], QUESTION.sub_queries) == pytest.approx((0.5 + 0.5) / 2)
    assert key_score([], QUESTION.sub_queries) == 0.0
    assert key_score(["sea"], []) == 0.0


def test_a_later_query_overwrites_an_earlier_ones_key_score() -> None:
    assert key_score(["paris river", "paris lake"], ["paris river"]) == pytest.approx(0.5)
    assert key_score(["paris lake", "paris river"], ["paris river"]) == pytest.approx(1.0)
    assert key_score(["paris river", "sea"], ["paris river"]) == pytest.approx(1.0)  # it fits none and goes nowhere


def test_gain_is_the_rise_of_the_running_best_cosine() -> None:
    cosines = {"a": np.array([0.2, 0.6], np.float32), "b": np.array([0.5, 0.1], np.float32)}
    # a: (0.2 + 0.6) / 2;   b: (0.5 - 0.2) / 2, where 0.1 is no rise;   both again: nothing.
    assert information_gains([["a"], ["b"], ["a", "b"]], cosines) == pytest.approx([0.4, 0.15, 0.0])
    assert information_gains([["b", "a"]], cosines) == pytest.approx([(0.5 + 0.6) / 2])


def test_redundancy_counts_a_document_once() -> None:
    assert redundancies([["a", "a"], ["a", "a", "b"], [], ["b", "c", "d", "a"]]) == [0.0, 0.5, 0.0, 0.5]


def test_cosines_weigh_words_by_smoothed_idf() -> None:
    # Both texts have "red", of idf 1; their other words have ln(3 / 2) + 1 each.
    shared = 1 / (1 + (np.log(1.5) + 1) ** 2)
    np.testing.assert_allclose(tfidf_cosines(["red hen"], ["red fox"]), [[shared]], rtol=1e-6)
    np.testing.assert_allclose(tfidf_cosines(["Red, fox!", "deep sea"], ["red fox"]), [[1.0], [0.0]], rtol=1e-6)


def test_a_document_is_fitted_with_the_gold_passages_alone() -> None:
    # Beside two golds "red" is in two texts of three and the others in one: as if no other document were there.
    golds = ["red fox", "white hen"]
    (alone,) = tfidf_cosines(["red hen"], golds)
    np.testing.assert_array_equal(tfidf_cosines(["red sea", "red hen", "red red red"], golds)[1], alone)
    # "red" and "hen" stand in two texts of three each, ln(4/3) + 1; "fox" and "white" in one, ln(4/2) + 1.
    twice, once = np.log(4 / 3) + 1, np.log(2) + 1
    shared = twice**2 / (np.hypot(twice, twice) * np.hypot(twice, once))
    np.testing.assert_allclose(alone, [shared, shared], rtol=1e-6)


def test_texts_stay_as_they_are_unless_they_are_to_be_normalised_as_answers_are() -> None:
    normal = tfidf_cosines(["The U.S. fox"], ["an us fox"], normalise_texts=True)
    np.testing.assert_allclose(normal, [[1.0]], rtol=1e-6)
    # As they are: "the", "fox" against "an", "us", "fox"; of five words but "fox", idf 1, each is in one text of two.
    once = np.log(1.5) + 1
    shared = 1 / (np.hypot(1, once) * np.sqrt(1 + 2 * once**2))
    np.testing.assert_allclose(tfidf_cosines(["The U.S. fox"], ["an us fox"]), [[shared]], rtol=1e-6)


@pytest.mark.parametrize(("texts", "passages"), [([], ["a fox"]), (["a fox"], []), (["", "?"], ["a"])])
def test_cosines_of_nothing_are_zeros(texts: list[str], passages: list[str]) -> None:
    cosines = tfidf_cosines(texts, passages)
    assert cosines.shape == (len(texts), len(passages))
    assert not cosines.any()


rows = st.lists(st.lists(st.sampled_from("abcd"), max_size=3), max_size=5)


@given(rows, st.lists(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2), min_size=4, max_size=4))
def test_gains_add_up_to_the_best_cosine_of_all_searches(searches: list[list[str]], values: list[list[float]]) -> None:
    cosines = {doc: np.array(value, np.float32) for doc, value in zip("abcd", values, strict=True)}
    found = [cosines[doc] for search in searches for doc in search]
    best = np.max(found, axis=0).mean() if found else 0.0
    gains = information_gains(searches, cosines)
    assert min(gains, default=0.0) >= 0
    assert sum(gains) == pytest.approx(float(best), abs=1e-6)


@given(rows, rows, st.permutations(range(2)))
def test_a_trajectorys_rewards_do_not_depend_on_the_others(
    first: list[list[str]], second: list[list[str]], order: list[int]
) -> None:
    documents = {
        name: Document(name, "", text) for name, text in zip("abcd", ["red fox", "hen", "sea", ""], strict=True)
    }
    rolled = [searched(*first), searched(*second, answer=None)]
    alone = [step_search_rewards(group(one, question=QUESTION), documents)[0] for one in rolled]
    together = step_search_rewards(group(*(rolled[i] for i in order), question=QUESTION), documents)
    assert [list(row) for row in together] == [list(alone[i]) for i in order]
