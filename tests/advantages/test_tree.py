"""Trees: shared turns, siblings, and the two levels of Tree-GRPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibadv.advantages.group import group_advantages
from calibadv.advantages.tree import parent_nodes, prefix_weights, tree_advantages, turn_nodes
from calibadv.types import Trajectory
from tests.build import group, trajectory


def leaf(reward: float, lengths: Sequence[int], nodes: Sequence[int], tree: int = 0) -> Trajectory:
    whole = trajectory(reward, lengths)
    turns = tuple(replace(turn, node=node) for turn, node in zip(whole.turns, nodes, strict=True))
    return replace(whole, turns=turns, tree=tree)


# Two branches of one search (node 0), and a tree of one leaf.
TREE = group(leaf(1.0, [2, 1], [0, 1]), leaf(0.0, [2, 3], [0, 2]), leaf(0.5, [1], [3], tree=1))


def test_turns_without_a_node_are_turns_of_their_own() -> None:
    chains = group(trajectory(1.0, [1, 1]), trajectory(0.0, [1]))
    assert turn_nodes(chains) == [[(0, 0), (0, 1)], [(1, 0)]]
    assert parent_nodes(chains) == [[-1, (0, 0)], [-1]]


def test_siblings_have_one_parent_and_all_trees_start_at_the_prompt() -> None:
    assert turn_nodes(TREE) == [[0, 1], [0, 2], [3]]
    assert parent_nodes(TREE) == [[-1, 0], [-1, 0], [-1]]


def test_both_levels_by_hand() -> None:
    # Tree 0 holds 1, 0, 0.5 and tree 1 holds 1, 1, 0, in turn; overall mean 7/12, std 0.491596.
    leaves = [(1.0, 0), (1.0, 1), (0.0, 0), (1.0, 1), (0.5, 0), (0.0, 1)]
    forest = group(*(leaf(reward, [1], [i], tree) for i, (reward, tree) in enumerate(leaves)))
    expected = [
        0.847580 + 1,
        0.847580 + 0.577350,
        -1.186612 - 1,
        0.847580 + 0.577350,
        -0.169516,
        -1.186612 - 1.154701,
    ]
    np.testing.assert_allclose(tree_advantages(forest), expected, atol=1e-5)


def test_the_only_leaf_of_its_tree_is_compared_with_the_other_trees_only() -> None:
    rewards = [1.0, 0.0, 0.5]
    lone = group(*(leaf(reward, [1], [i], tree=i) for i, reward in enumerate(rewards)))
    np.testing.assert_array_equal(tree_advantages(lone), group_advantages(rewards))


def test_chains_alone_get_twice_the_group_advantage() -> None:
    rewards = [1.0, 0.0, 0.5, 0.5]
    chains = group(*(trajectory(reward, [1, 1]) for reward in rewards))
    np.testing.assert_array_equal(tree_advantages(chains), 2 * group_advantages(rewards))


def test_a_shared_prefix_weighs_as_much_as_if_it_stood_once() -> None:
    rows = prefix_weights(TREE)
    assert [row.tolist() for row in rows] == [[0.5, 0.5, 1], [0.5, 0.5, 1, 1, 1], [1]]
    assert sum(row.sum() for row in rows) == 2 + 1 + 3 + 1  # the distinct tokens


def test_chains_weigh_one_on_every_token() -> None:
    assert all((row == 1).all() for row in prefix_weights(group(trajectory(1.0, [2, 2]), trajectory(0.0, [2, 2]))))


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2)), min_size=1, max_size=8))
def test_an_equal_tree_adds_nothing(leaves: list[tuple[float, int]]) -> None:
    forest = group(*(leaf(reward, [1], [i], tree) for i, (reward, tree) in enumerate(leaves)))
    among_all = group_advantages([reward for reward, _ in leaves])
    for i, (_, tree) in enumerate(leaves):
        if len({reward for reward, other in leaves if other == tree}) == 1:
            assert tree_advantages(forest)[i] == among_all[i]
