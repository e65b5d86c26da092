"""GiGPO: the outcome advantage plus that among turns of one anchor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.methods.gigpo import gigpo
from calibadv.methods.grpo import grpo
from calibadv.types import Group, Trajectory, TurnKind
from tests.build import group, trajectory, turn
from tests.methods.checks import assert_grpo, assert_order_is_nothing

HALF = np.sqrt(0.5)  # of two alternatives: ±1 over a std of sqrt(2)


def reading(reward: float, *observations: int, void: bool = False) -> Trajectory:
    """One token a turn: a search for each observation, each of 20 equal ids, then an answer or a void turn."""
    searches = [replace(turn(1), observation_ids=np.full(20, ids)) for ids in observations]
    last = turn(1, kind=TurnKind.VOID if void else TurnKind.ANSWER)
    return replace(trajectory(reward, [1]), turns=(*searches, last))


def test_turns_of_one_anchor_are_compared_by_hand() -> None:
    # A_E = ±0.7071. The question: R = 0.95 and 0; the same information: R = 1 and 0. Each gives A_S = ±0.7071.
    good, bad = gigpo().advantages(group(reading(1.0, 7), reading(0.0, 7)))
    np.testing.assert_allclose(good, [2 * HALF, 2 * HALF], atol=5e-6)
    np.testing.assert_allclose(bad, [-2 * HALF, -2 * HALF], atol=5e-6)


def test_a_lone_anchor_leaves_grpo() -> None:
    good, bad = gigpo(omega=0.5).advantages(group(reading(1.0, 7), reading(0.0, 8)))
    np.testing.assert_allclose(good, [1.5 * HALF, HALF], atol=5e-6)
    np.testing.assert_allclose(bad, [-1.5 * HALF, -HALF], atol=5e-6)


def test_one_rollout_may_come_back_to_an_anchor() -> None:
    # All else equal, of two turns that read the same the later one is nearer to the reward: R = 0.95 and 1.
    (row,) = gigpo().advantages(group(reading(1.0, 7, 7)))
    np.testing.assert_allclose(row - row[0], [0, -HALF, HALF], atol=5e-5)


def test_a_void_turn_costs_at_that_turn_alone() -> None:
    # No reward at all. After the same information R = 0 and -0.01; at the question both are 0.
    fine, void = gigpo().advantages(group(reading(0.0, 7), reading(0.0, 7, void=True)))
    np.testing.assert_allclose(fine, [0, HALF], atol=2e-4)
    np.testing.assert_allclose(void, [0, -HALF], atol=2e-4)
    free = gigpo(invalid_penalty=0.0).advantages(group(reading(0.0, 7), reading(0.0, 7, void=True)))
    assert all(not row.any() for row in free)


def test_an_all_wrong_group_without_void_turns_has_nothing() -> None:
    assert all(not row.any() for row in gigpo().advantages(group(reading(0.0, 7), reading(0.0, 7, 8), reading(0.0))))


def test_official_episode_statistics_count_a_rollout_once_a_turn() -> None:
    # Rewards a turn: 1, 1, 1, 0. Mean 0.75, unbiased deviation 0.5: 0.5 and -1.5. Counted by rollouts: ±0.7071.
    g = group(reading(1.0, 7, 8), reading(0.0))
    long, short = gigpo(omega=0, episode_statistics="turns").advantages(g)
    np.testing.assert_allclose(long, [0.5, 0.5, 0.5], atol=5e-6)
    np.testing.assert_allclose(short, [-1.5], atol=5e-6)
    long, short = gigpo(omega=0).advantages(g)
    np.testing.assert_allclose([long[0], short[0]], [HALF, -HALF], atol=5e-6)


def test_official_episode_statistics_take_the_penalty_off_void_turns() -> None:
    # Rewards a turn: 0, 0, 0, -0.01. Mean -0.0025, unbiased deviation 0.005: 0.5 and -1.5, a little less by epsilon.
    g = group(reading(0.0, 7), reading(0.0, 7, void=True))
    fine, void = gigpo(omega=0, episode_statistics="turns").advantages(g)
    np.testing.assert_allclose(fine, [0.5, 0.5], atol=2e-4)
    np.testing.assert_allclose(void, [0.5, -1.5], atol=5e-4)


def test_autojunk_is_difflibs() -> None:
    # 250 ids of five kinds: with the heuristic none of them may begin a match, so that only equal blocks are similar.
    text = np.arange(250) % 5
    near = replace(turn(1), observation_ids=np.concatenate([[9], text[1:]]))
    far = replace(turn(1), observation_ids=text)
    rollouts = [replace(reading(r, 7), turns=(s, turn(1, kind=TurnKind.ANSWER))) for r, s in ((1.0, near), (0.0, far))]
    assert gigpo().advantages(group(*rollouts))[0][1] == pytest.approx(2 * HALF, abs=1e-5)
    assert gigpo(autojunk=True).advantages(group(*rollouts))[0][1] == pytest.approx(HALF, abs=1e-5)


def test_of_equal_rewards_the_shorter_rollout_ranks_higher_unless_gamma_is_one() -> None:
    g = group(reading(1.0, 7), reading(1.0, 8, 9))
    short, long = gigpo().advantages(g)
    np.testing.assert_allclose(short, [HALF, 0], atol=5e-5)  # R = 0.95 and 0.9025
    np.testing.assert_allclose(long, [-HALF, 0, 0], atol=5e-5)
    assert all(not row.any() for row in gigpo(gamma=1.0).advantages(g))


def test_similarity_decides_what_is_one_anchor() -> None:
    near = replace(turn(1), observation_ids=np.array([7] * 19 + [8]))
    g = group(reading(1.0, 7), replace(reading(0.0, 7), turns=(near, turn(1, kind=TurnKind.ANSWER))))
    assert gigpo(similarity=0.95).advantages(g)[0][1] == pytest.approx(2 * HALF, abs=1e-5)
    assert gigpo(similarity=1.0).advantages(g)[0][1] == pytest.approx(HALF, abs=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"omega": -1}, "omega is -1, expected 0 or more"),
        ({"invalid_penalty": -0.1}, "invalid_penalty is -0.1"),
        ({"gamma": 0.0}, "gamma is 0.0, expected a number above 0"),
        ({"similarity": 1.1}, "similarity is 1.1"),
        ({"episode_statistics": "steps"}, "episode_statistics is 'steps'"),
    ],
)
def test_wrong_parameters_are_refused(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gigpo(**params)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    size = draw(st.integers(1, 5))
    return group(
        *(
            reading(
                draw(st.sampled_from([0.0, 0.5, 1.0])),
                *draw(st.lists(st.integers(1, 3), max_size=3)),
                void=draw(st.booleans()),
            )
            for _ in range(size)
        )
    )


@given(groups(), st.randoms(use_true_random=False))
def test_permuting_the_group_permutes_the_credit(g: Group, random) -> None:
    assert_order_is_nothing(gigpo(), g, random, 1e-4)


@given(groups())
def test_omega_zero_is_grpo(g: Group) -> None:
    assert_grpo(gigpo(omega=0).advantages(g), g)


@given(groups())
def test_turns_that_read_what_no_other_did_are_grpo(g: Group) -> None:
    unique = iter(range(100, 200))
    rollouts = [
        reading(t.reward, *(next(unique) for _ in t.turns[1:]), void=t.turns[-1].kind is TurnKind.VOID)
        for t in g.trajectories
    ]
    for row, plain in zip(gigpo().advantages(group(*rollouts)), grpo().advantages(g), strict=True):
        np.testing.assert_array_equal(row[1:], plain[1:])


@given(groups())
def test_copies_of_one_rollout_give_exact_zeros(g: Group) -> None:
    first = g.trajectories[0]
    once = reading(first.reward, *range(1, len(first.turns)))
    assert all(not row.any() for row in gigpo().advantages(group(once, once, once)))
