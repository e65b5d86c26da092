"""Tree-GRPO: its forest, its two-level credit on whole chains, and prefixes trained once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.methods.tree_grpo import tree_grpo
from calibadv.rollout.plans import Prefix, number_nodes
from calibadv.types import Trajectory
from tests.build import group, trajectory
from tests.methods.checks import assert_grpo, assert_order_is_nothing


def test_a_leaf_gets_both_advantages_on_its_whole_chain() -> None:
    # Overall mean 0.5 and std 0.577350; tree 0 holds 1 and 0 (±0.707107), tree 1 holds 1 and 0.
    leaves = [(1.0, 0, [2, 1]), (0.0, 0, [1, 1]), (1.0, 1, [1]), (0.0, 1, [3])]
    forest = group(*(replace(trajectory(reward, lengths), tree=tree) for reward, tree, lengths in leaves))
    for row, (reward, _, lengths) in zip(tree_grpo().advantages(forest), leaves, strict=True):
        assert len(row) == sum(lengths)
        np.testing.assert_allclose(row, (2 * reward - 1) * (0.866025 + 0.707107), atol=1e-5)


async def test_the_forest_is_the_methods_own_and_samples_are_not_read() -> None:
    sampled = []

    async def roll(sample: int, prefix: Prefix = ()) -> Trajectory:
        sampled.append(sample)
        new = trajectory(0.0, [1, 1])
        return replace(new, turns=prefix + new.turns[len(prefix) :])

    assert [t.tree for t in await tree_grpo().plan(99)(roll, 0)] == [0, 0, 0, 1, 1, 1]
    assert len(await tree_grpo(trees=3, nodes=1, rounds=2).plan(1)(roll, 0)) == 9
    assert len(sampled) == 6 + 9


def test_a_shared_prefix_can_be_trained_once() -> None:
    trunk, branch = trajectory(1.0, [2, 1]), trajectory(0.0, [2, 3])
    shared = number_nodes([trunk, replace(branch, turns=(trunk.turns[0], branch.turns[1]))])
    assert tree_grpo().weights is None
    weigh = tree_grpo(train_prefix_once=True).weights
    assert weigh is not None
    assert [row.tolist() for row in weigh(group(*shared))] == [[0.5, 0.5, 1], [0.5, 0.5, 1, 1, 1]]


def test_an_impossible_forest_is_refused_before_anything_rolls() -> None:
    with pytest.raises(ValueError, match="trees = 0, nodes = 2, rounds = 1"):
        tree_grpo(trees=0)


leaves = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2)), min_size=1, max_size=7)


@given(leaves, st.randoms(use_true_random=False))
def test_permuting_the_leaves_permutes_the_credit(drawn: list[tuple[float, int]], random) -> None:
    g = group(*(replace(trajectory(reward, [1, 1]), tree=tree) for reward, tree in drawn))
    assert_order_is_nothing(tree_grpo(), g, random)


@given(leaves)
def test_equal_rewards_give_exact_zeros(drawn: list[tuple[float, int]]) -> None:
    equal = group(*(replace(trajectory(0.3, [1, 1]), tree=tree) for _, tree in [*drawn, (0.0, 0)]))
    assert all(not row.any() for row in tree_grpo().advantages(equal))


@given(leaves)
def test_a_tree_a_chain_is_grpo(drawn: list[tuple[float, int]]) -> None:
    chains = group(*(replace(trajectory(reward, [1, 1]), tree=i) for i, (reward, _) in enumerate(drawn)))
    assert_grpo(tree_grpo().advantages(chains), chains)
