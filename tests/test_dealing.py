"""Who trains which group: even parts of every mini-batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibadv.dealing import Tokens, deal
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


def test_a_step_of_the_papers_size_is_even_to_three_percent_on_eight_learners() -> None:
    random = np.random.default_rng(0)
    minibatch_R = random.permutation(2560) * 10 // 2560
    tokens_GM = np.zeros((512, 10))
    np.add.at(tokens_GM, (np.arange(2560) // 5, minibatch_R), random.lognormal(7, 0.5, 2560))
    loads_LM = loads(tokens_GM, deal(tokens_GM, 8), 8)
    assert (loads_LM.max(axis=0) / loads_LM.mean(axis=0)).mean() < 1.03
