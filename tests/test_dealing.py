"""Who trains which rollout: even parts of every mini-batch."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.dealing import busiest, computed, deal, deal_rollouts, loads


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


@pytest.mark.parametrize("prompt", [0, 200])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("learners", "most"), [(8, 1.01), (32, 1.03), (64, 1.05)])
def test_what_is_computed_of_a_step_of_the_papers_size_is_even(
    learners: int, most: float, whole: bool, prompt: int
) -> None:
    random = np.random.default_rng(0)
    drawn = np.arange(2560) if whole else random.permutation(2560)
    tokens_RM = np.zeros((2560, 10))
    tokens_RM[np.arange(2560), drawn * 10 // 2560] = prompt + random.lognormal(7, 0.5, 2560)
    alike = [np.full((5, 5), float(prompt))] * 512
    owner_R = deal_rollouts(tokens_RM, alike, learners)
    assert busiest(computed(tokens_RM, alike, owner_R), owner_R, learners) <= most


def test_the_busiest_learner_is_compared_within_each_mini_batch() -> None:
    tokens_RM = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    assert busiest(tokens_RM, np.array([0, 1, 0, 1]), 2) == pytest.approx((1 + 1.5) / 2)
    assert busiest(tokens_RM[:0], np.array([], np.int64), 2) == 1


def test_a_beginning_is_computed_once_by_those_of_a_group_that_train_together() -> None:
    # The second begins as the first for 3 tokens, the third as the first for 1 and as the second for 2.
    alike = [np.array([[9.0, 3, 1], [3, 9, 2], [1, 2, 9]]), np.array([[9.0]])]
    tokens_RM = np.array([[4.0, 0], [5.0, 0], [6.0, 0], [7.0, 0]])
    assert computed(tokens_RM, alike, np.zeros(4, np.int64))[:, 0].tolist() == [4, 2, 4, 7]
    assert computed(tokens_RM, alike, np.array([0, 1, 0, 0]))[:, 0].tolist() == [4, 5, 5, 7]
    tokens_RM[1] = 0, 5  # in another mini-batch
    assert computed(tokens_RM, alike, np.zeros(4, np.int64)).tolist() == [[4, 0], [0, 5], [5, 0], [7, 0]]


@given(
    st.lists(st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=5), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_what_is_computed_is_the_tree_of_a_groups_beginnings(groups: list[list[str]], random: Random) -> None:
    alike = [
        np.array([[sum(left.startswith(right[: end + 1]) for end in range(len(right))) for right in of] for left in of])
        for of in groups
    ]
    texts = [text for texts in groups for text in texts]
    group_R = np.repeat(np.arange(len(groups)), [len(texts) for texts in groups])
    tokens_R1 = np.array([[float(len(text))] for text in texts])
    part_R = np.array([random.randrange(3) for _ in texts])
    nodes = {
        (g, p, text[: end + 1]) for g, p, text in zip(group_R, part_R, texts, strict=True) for end in range(len(text))
    }
    assert computed(tokens_R1, alike, part_R).sum() == len(nodes)


# Two groups of two rollouts, 4 and 2 tokens each, of which none or 2 are alike.
APART, SIZES_R1 = [np.zeros((2, 2))] * 2, np.array([[4.0], [2.0], [4.0], [2.0]])


def test_groups_stay_whole_where_that_is_even() -> None:
    owner_R = deal_rollouts(SIZES_R1, APART, 2)
    assert owner_R[0] == owner_R[1] != owner_R[2] == owner_R[3]


def test_groups_are_cut_where_learners_wait_longer_for_the_busiest_otherwise() -> None:
    tokens_RM = np.array([[4.0, 0], [4.0, 0], [0, 2.0], [0, 2.0]])  # each group is a mini-batch
    owner_R = deal_rollouts(tokens_RM, APART, 2)
    assert busiest(tokens_RM, owner_R, 2) == 1


def test_groups_stay_whole_where_to_cut_them_would_make_more_to_compute_than_it_makes_even() -> None:
    tokens_RM = np.array([[4.0, 0], [4.0, 0], [0, 4.0], [0, 4.0]])
    for alike, cut in ((3.0, True), (4.0, False)):  # together 5 and 4 tokens, apart 4
        owner_R = deal_rollouts(tokens_RM, [np.full((2, 2), alike)] * 2, 2)
        assert (owner_R[0] != owner_R[1]) == cut


def test_what_is_dealt_is_what_is_computed() -> None:
    # Whole groups have 8, 8, 6 and 6 tokens, of which 5, 8, 6 and 3 are computed.
    tokens_R1 = np.array([[4.0], [4.0], [8.0], [3.0], [3.0], [3.0], [3.0]])
    alike = [np.full((2, 2), 3.0), np.zeros((1, 1)), np.zeros((2, 2)), np.full((2, 2), 3.0)]
    owner_R = deal_rollouts(tokens_R1, alike, 2)
    assert loads(computed(tokens_R1, alike, owner_R), owner_R, 2).tolist() == [[11], [11]]
    assert [len(set(owner_R[mine])) for mine in (slice(0, 2), slice(3, 5), slice(5, 7))] == [1, 1, 1]


def test_a_large_group_is_cut_in_halves_before_it_is_cut_in_rollouts() -> None:
    tokens_R1 = np.full((4, 1), 4.0)  # 7 tokens together, 5 a half, 8 two by two that are no halves of one group
    owner_R = deal_rollouts(tokens_R1, [np.full((4, 4), 3.0)], 2)
    assert owner_R[0] == owner_R[1] != owner_R[2] == owner_R[3]


def test_rollouts_of_a_group_in_one_mini_batch_stay_together_while_that_is_even() -> None:
    # Group 0 has two rollouts in mini-batch 0 and one in 1; group 1 the same, so that whole groups are 6 and 6.
    alike = [np.zeros((size, size)) for size in (3, 3, 1)]
    tokens_RM = np.array([[1.0, 0], [1, 0], [0, 5], [1, 0], [1, 0], [0, 3], [0, 2]])
    owner_R = deal_rollouts(tokens_RM, alike, 2)
    assert owner_R[0] == owner_R[1] != owner_R[3] == owner_R[4]
    assert busiest(tokens_RM, owner_R, 2) == 1


def test_nothing_is_dealt_where_there_is_nothing() -> None:
    assert deal_rollouts(np.zeros((0, 3)), [], 2).tolist() == []
