"""Silver documents, step scores and the soft penalty, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibadv.advantages.group import group_advantages
from calibadv.advantages.silver import edit_similarity, silver_documents, soften_negative, step_scores
from tests.build import group, trajectory


def test_group_advantages_use_the_unbiased_std() -> None:
    np.testing.assert_allclose(group_advantages([1, 0, 0.5]), [1, -1, 0], atol=1e-5)


def test_group_of_one_keeps_its_reward() -> None:
    np.testing.assert_allclose(group_advantages([0.7]), [0.7], atol=1e-5)


def test_nearly_equal_rewards_are_one_reward() -> None:
    assert group_advantages([0.1 + 0.2, 0.3, 0.3]).tolist() == [0, 0, 0]


def test_silver_documents_come_from_correct_well_formed_rollouts_only() -> None:
    g = group(
        trajectory(0.7, [1, 1], [["a", "b"]]),
        trajectory(0.69, [1, 1], [["c"]]),
        trajectory(1.0, [1, 1], [["d"]], format_reward=0.0),
    )
    assert silver_documents(g) == {"a", "b"}


def test_a_rollout_is_correct_by_its_answer_and_of_the_best_tier_by_its_reward() -> None:
    # Too long, or judged otherwise: the reward is not the answer's.
    g = group(
        replace(trajectory(1.0, [1, 1], [["a"]]), reward=0.2),
        replace(trajectory(0.8, [1, 1], [["b"]]), reward=0.8),
        replace(trajectory(0.1, [1, 1], [["c"]]), reward=0.9),
    )
    assert silver_documents(g) == {"a", "b"}
    assert silver_documents(g, best_tier_only=True) == {"b"}


def test_best_tier_keeps_the_highest_reward_and_merges_its_ties() -> None:
    g = group(
        trajectory(0.8, [1, 1], [["a"]]),
        trajectory(1.0, [1, 1], [["b"]]),
        trajectory(1.0, [1, 1], [["c"]]),
    )
    assert silver_documents(g, best_tier_only=True) == {"b", "c"}


def test_score_counts_distinct_documents() -> None:
    g = group(trajectory(0.0, [1, 1, 1, 1], [["a", "a", "x"], [], ["x", "y"]]))
    assert step_scores(g, {"a"})[0].tolist() == [0.5, 0.0, 0.0]


def test_a_document_seen_before_is_not_silver_again_in_the_reference() -> None:
    g = group(trajectory(0.0, [1, 1, 1], [["a", "x"], ["a", "b"]]))
    assert step_scores(g, {"a", "b"}, new_documents_only=True)[0].tolist() == [0.5, 0.5]


def test_a_step_that_shares_two_documents_with_an_earlier_one_scores_zero_in_the_reference() -> None:
    g = group(trajectory(0.0, [1, 1, 1, 1], [["a", "b", "c"], ["a", "d"], ["a", "b"]]))
    assert step_scores(g, {"a", "b"}, repeats_score_zero=True)[0].tolist() == pytest.approx([2 / 3, 0.5, 0])


def test_a_repeated_think_scores_zero_in_the_reference() -> None:
    texts = ["<think>find the mayor of Rome</think>", "find the mayor of Paris</think>", "something else</think>"]
    g = group(trajectory(0.0, [1, 1, 1, 1], [["a"], ["b"], ["c"]], texts=texts))
    assert step_scores(g, {"a", "b", "c"}, repeats_score_zero=True)[0].tolist() == [1, 0, 1]


def test_a_think_of_which_half_is_another_repeats_nothing() -> None:
    texts = ["<think>a b</think>", "<think>a c</think>", "<think>a b d</think>"]  # half of the first, 2/3 of the first
    g = group(trajectory(0.0, [1, 1, 1, 1], [["a"], ["b"], ["c"]], texts=texts))
    assert step_scores(g, {"a", "b", "c"}, repeats_score_zero=True)[0].tolist() == [1, 1, 0]


def test_edit_similarity_counts_words() -> None:
    assert edit_similarity(["a", "b", "c", "d"], ["a", "x", "c"]) == pytest.approx(1 - 2 / 4)
    assert edit_similarity(["a", "b", "c", "d"], ["a", "x", "c"], least=0.6) == 0
    assert edit_similarity([], []) == 0
    assert edit_similarity(["a"], []) == 0


def test_a_step_repeats_an_earlier_one_also_where_that_found_nothing_silver() -> None:
    texts = ["<think>the mayor of Rome</think>", "<think>the mayor of Oslo</think>", "<think>x</think>", ""]
    g = group(trajectory(0.0, [1, 1, 1, 1], [["a"], ["b"], ["c"]], texts=texts))
    assert step_scores(g, {"b", "c"}, repeats_score_zero=True)[0].tolist() == [0, 0, 1]


def test_soft_penalty_spares_positive_advantages_and_the_final_step() -> None:
    g = group(trajectory(0.0, [2, 1, 2]), trajectory(1.0, [1, 1]))
    credit = [np.full(5, -1, np.float32), np.full(2, 1, np.float32)]
    first, second = soften_negative(credit, g, [np.array([0.25, 1], np.float32), np.array([1], np.float32)])
    assert first.tolist() == [-0.75, -0.75, 0, -1, -1]
    assert second.tolist() == [1, 1]
