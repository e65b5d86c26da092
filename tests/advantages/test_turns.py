"""Credit of turns: comparison among peers, and its way onto tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibadv.advantages.turns import add_to_turns, relative, relative_to_peers, spread, turn_rewards
from tests.build import group, trajectory, turn

rewards = st.lists(st.sampled_from([0.0, 0.2, 0.7, 1.0]), min_size=1, max_size=6)


def rows(*values: list[float]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.float32) for row in values]


def test_relative_by_hand() -> None:
    np.testing.assert_allclose(relative([0, 1, 2]), [-1, 0, 1], atol=1e-5)
    np.testing.assert_allclose(relative([0.7, 0.2, 0.45], epsilon=0.25), [0.5, -0.5, 0], atol=1e-6)


def test_one_alone_and_equal_rewards_are_exact_zeros() -> None:
    assert relative([3.0]).tolist() == [0]
    assert relative([0.1 + 0.2, 0.3, 0.3]).tolist() == [0, 0, 0]
    assert relative([]).tolist() == []


def test_turns_are_compared_with_those_of_their_key_only() -> None:
    compared = relative_to_peers(rows([0, 5, 7], [1, 9], [2]), [["a", "b", None], ["a", "c"], ["a"]])
    for row, expected in zip(compared, [[-1, 0, 0], [0, 0], [1]], strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_a_turn_of_several_trajectories_counts_once_and_gets_the_same_in_each() -> None:
    # Of x (0), x (0), y (1), z (2): three alternatives of mean 1 and std 1.
    compared = relative_to_peers(rows([0], [0], [1], [2]), [["p"]] * 4, turns=[["x"], ["x"], ["y"], ["z"]])
    np.testing.assert_allclose(np.concatenate(compared), [-1, -1, 0, 1], atol=1e-5)


def test_values_lie_on_all_tokens_of_their_turn() -> None:
    g = group(trajectory(1.0, [2, 1, 3]), trajectory(0.0, [1]))
    first, second = spread(rows([1, 2, 3], [4]), g)
    assert first.tolist() == [1, 1, 2, 3, 3, 3]
    assert second.tolist() == [4]
    assert first.dtype == np.float32


def test_weighted_values_are_added_to_the_credit() -> None:
    g = group(trajectory(1.0, [2, 1]))
    credit = rows([1, 1, 1])
    assert add_to_turns(credit, rows([2, 4]), g, 0.5)[0].tolist() == [2, 2, 3]
    assert credit[0].tolist() == [1, 1, 1]


def test_turn_rewards_are_read_off_the_turns() -> None:
    chain = replace(trajectory(1.0, [1]), turns=(replace(turn(), reward=0.5), turn()))
    assert [row.tolist() for row in turn_rewards(group(chain))] == [[0.5, 0]]


@given(rewards)
def test_relative_rewards_sum_to_zero(values: list[float]) -> None:
    assert abs(relative(values).sum()) < 1e-5


@given(rewards, st.randoms(use_true_random=False))
def test_peers_are_compared_alike_in_any_order(values: list[float], random) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    plain = relative_to_peers(rows(values), [["p"] * len(values)])[0]
    shuffled = relative_to_peers(rows([values[i] for i in order]), [["p"] * len(values)])[0]
    np.testing.assert_allclose(shuffled, plain[order], atol=1e-6)
