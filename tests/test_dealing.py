"""Who trains which rollout: even parts of every mini-batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.dealing import Tokens, busiest, deal, deal_rollouts
from calibadv.types import IntArray


def loads(tokens_GM: Tokens, owner_G: IntArray, learners: int) -> Tokens:
    """Tokens of each learner in each mini-batch."""
    return np.stack([tokens_GM[owner_G == learner].sum(axis=0) for learner in range(learners)])


def test_each_mini_batch_is_shared_evenly_and_not_the_step_alone() -> None:
    # By their sums, two and two of any kind would do.
    tokens_GM = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
    assert loads(tokens_GM, deal(tokens_GM, 2), 2).tolist() == [[4, 4], [4, 4]]


def test_of_one_mini_batch_the_largest_go_to_the_emptiest_first_and_a_swap_mends_what_that_misses() -> None:
    # 3 | 3, then 2, 2, 2 in turns: 7 and 5. A three for a two of the other: 6 and 6.
    tokens_GM = np.array([[3.0], [3.0], [2.0], [2.0], [2.0]])
    assert loads(tokens_GM, deal(tokens_GM, 2), 2).tolist() == [[6], [6]]


def test_more_learners_than_groups_have_one_group_each_at_most() -> None:
    owner_G = deal(np.array([[5.0], [1.0]]), 4)
    assert len(set(owner_G.tolist())) == 2
    assert deal(np.zeros((0, 3)), 4).tolist() == []
    assert deal(np.array([[5.0], [1.0]]), 1).tolist() == [0, 0]


@given(st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=20), st.integers(2, 5))
def test_every_group_has_one_owner_and_the_same_one_each_time(tokens: list[list[int]], learners: int) -> None:
    tokens_GM = np.array(tokens, dtype=float)
    owner_G = deal(tokens_GM, learners)
    assert set(owner_G.tolist()) <= set(range(learners))
    assert deal(tokens_GM, learners).tolist() == owner_G.tolist()


@given(st.lists(st.integers(1, 99), min_size=1, max_size=40), st.integers(2, 5))
def test_swaps_only_make_it_more_even(tokens: list[int], learners: int) -> None:
    graham_L = np.zeros(learners)
    for size in sorted(tokens, reverse=True):
        graham_L[graham_L.argmin()] += size
    tokens_U1 = np.array(tokens, dtype=float)[:, None]
    dealt_L = loads(tokens_U1, deal(tokens_U1, learners), learners)[:, 0]
    assert (dealt_L**2).sum() <= (graham_L**2).sum()


@pytest.mark.parametrize(("learners", "most"), [(8, 1.01), (32, 1.03), (64, 1.05)])
def test_a_step_of_the_papers_size_is_even(learners: int, most: float) -> None:
    random = np.random.default_rng(0)
    tokens_RM = np.zeros((2560, 10))
    tokens_RM[np.arange(2560), random.permutation(2560) * 10 // 2560] = random.lognormal(7, 0.5, 2560)
    owner_R = deal_rollouts(tokens_RM, np.arange(2560) // 5, learners)
    assert busiest(tokens_RM, owner_R, learners) <= most


def test_the_busiest_learner_is_compared_within_each_mini_batch() -> None:
    tokens_RM = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    assert busiest(tokens_RM, np.array([0, 1, 0, 1]), 2) == pytest.approx((1 + 1.5) / 2)
    assert busiest(tokens_RM[:0], np.array([], np.int64), 2) == 1


# Two groups of two rollouts, 4 and 2 tokens each.
GROUPS_R, SIZES_R = np.array([0, 0, 1, 1]), np.array([4.0, 2.0, 4.0, 2.0])


def test_groups_stay_whole_where_that_is_even() -> None:
    owner_R = deal_rollouts(SIZES_R[:, None], GROUPS_R, 2)
    assert owner_R[0] == owner_R[1] != owner_R[2] == owner_R[3]


def test_groups_are_cut_where_a_mini_batch_is_uneven_otherwise() -> None:
    tokens_RM = np.array([[4.0, 0], [4.0, 0], [0, 2.0], [0, 2.0]])  # each group is a mini-batch
    owner_R = deal_rollouts(tokens_RM, GROUPS_R, 2)
    assert busiest(tokens_RM, owner_R, 2) == 1
    assert deal_rollouts(tokens_RM, GROUPS_R, 2, even=2.0).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_rollouts_of_a_group_in_one_mini_batch_stay_together_while_that_is_even() -> None:
    # Group 0 has two rollouts in mini-batch 0 and one in 1; group 1 the same, so that whole groups are 6 and 6.
    group_R = np.array([0, 0, 0, 1, 1, 1, 2])
    tokens_RM = np.array([[1.0, 0], [1, 0], [0, 5], [1, 0], [1, 0], [0, 3], [0, 2]])
    owner_R = deal_rollouts(tokens_RM, group_R, 2)
    assert owner_R[0] == owner_R[1] != owner_R[3] == owner_R[4]
    assert busiest(tokens_RM, owner_R, 2) == 1
