"""A group's rows, wherever its rollouts train."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from calibadv.batching import GroupShard, Row
from calibadv.methods import METHODS, make_method
from calibadv.methods.method import StepFacts
from calibadv.methods.rows import credit_rows, critic_rewards
from calibadv.rllib.totals import trained_credit
from tests.build import group, trajectory

GROUP = group(
    trajectory(1.0, [2, 3, 1], [["a"], ["b"]]),
    trajectory(0.0, [2, 1], [["a", "x"]]),
    trajectory(0.0, [1, 4, 2], [["x"], ["b", "y"]]),
)
WHOLE = GroupShard(GROUP, (0, 1, 0), ((3, 2, 3),))
PARTS = [GroupShard(GROUP, (0, 1, 0), ((3, 2, 3),), rollouts) for rollouts in ((0, 2), (1,))]
FACTS = StepFacts(mean_searches=1.0)


def assert_same(one: Row, other: Row) -> None:
    for field in fields(Row):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


@pytest.mark.parametrize("name", METHODS)
def test_rollouts_of_a_group_that_train_apart_have_the_credit_of_the_whole_group(name: str) -> None:
    method = make_method(name, {})
    first, second, third = credit_rows(WHOLE, method, FACTS)
    (one, three), (two,) = (credit_rows(part, method, FACTS) for part in PARTS)
    for row, whole in ((one, first), (two, second), (three, third)):
        assert_same(row, whole)
    assert [row.minibatch for row in (one, two, three)] == [0, 1, 0]
    assert [row.later_minibatches for row in (one, two, three)] == [(3,), (2,), (3,)]


def test_a_critic_s_rewards_are_those_of_the_rollouts_that_train_here() -> None:
    critic = make_method("ppo", {}).critic
    assert critic is not None
    whole = critic_rewards([WHOLE], critic)
    for place, rewards_N in zip((0, 2, 1), critic_rewards(PARTS, critic), strict=True):
        np.testing.assert_array_equal(rewards_N, whole[place])


def test_the_credit_of_a_group_is_put_together_from_all_learners() -> None:
    one, two, three = (np.array([value], np.float32) for value in (1.0, 2.0, 3.0))
    ranks = [{"credit": {"q": {0: one, 2: three}}}, {"credit": {"q": {1: two}, "r": {0: one}}}]
    assert trained_credit(ranks) == {"q": [one, two, three], "r": [one]}


def test_only_what_trains_here_is_counted() -> None:
    assert [len(part) for part in PARTS] == [
        GROUP.trajectories[0].num_tokens + GROUP.trajectories[2].num_tokens,
        GROUP.trajectories[1].num_tokens,
    ]
