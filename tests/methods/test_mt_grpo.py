"""MT-GRPO in both forms: which tokens get a turn advantage, and among what it is normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.methods.grpo import grpo
from calibadv.methods.mt_grpo import mt_grpo
from calibadv.rewards.turns import with_turn_rewards
from calibadv.rollout.plans import chains, siblings
from calibadv.types import Document, Group, Trajectory, TurnKind
from tests.build import group, trajectory, turn
from tests.methods.checks import assert_grpo, assert_order_is_nothing

KINDS = {"s": TurnKind.SEARCH, "v": TurnKind.VOID, "a": TurnKind.ANSWER}


def rollout(reward: float, kinds: str, rewards: Sequence[float] = (), nodes: Sequence[int] = ()) -> Trajectory:
    """One token a turn; s search, v void, a answer."""
    turns = tuple(
        replace(
            turn(1, kind=KINDS[kind]),
            reward=rewards[s] if s < len(rewards) else 0.0,
            node=nodes[s] if s < len(nodes) else -1,
        )
        for s, kind in enumerate(kinds)
    )
    return replace(trajectory(reward, [1]), turns=turns)


def test_chains_add_the_turn_advantage_up_to_the_first_search() -> None:
    # A_O = 1, -1, 0; turn rewards of mean 0.45 and std 0.25, so that A_T = 0.25 / 0.2501 = 0.9996.
    first, second, third = mt_grpo().advantages(
        group(rollout(1.0, "ssa", [0.7]), rollout(0.0, "sa", [0.2]), rollout(0.5, "sssa", [0.45]))
    )
    np.testing.assert_allclose(first, [1.9996, 1, 1], atol=2e-6)
    np.testing.assert_allclose(second, [-1.9996, -1], atol=2e-6)
    np.testing.assert_allclose(third, [0, 0, 0, 0], atol=2e-6)


def test_lam_weighs_the_turn_advantage_and_zero_is_grpo() -> None:
    g = group(rollout(1.0, "sa", [0.7]), rollout(0.0, "sa", [0.2]), rollout(0.5, "sa", [0.45]))
    np.testing.assert_allclose(mt_grpo(lam=0.5).advantages(g)[0], [1.4998, 1], atol=2e-6)
    for form in ("chains", "tree"):
        assert_grpo(mt_grpo(form=form, lam=0).advantages(g), g)


def test_void_turns_before_the_first_search_share_its_advantage() -> None:
    retried, _ = mt_grpo().advantages(group(rollout(0.0, "vsa", [0, 0.7]), rollout(0.0, "sa", [0.2])))
    np.testing.assert_allclose(retried, [0.706907, 0.706907, 0], atol=2e-6)  # 0.25 / (0.353553 + 1e-4)


def test_a_rollout_without_a_search_is_compared_with_turn_reward_zero() -> None:
    direct, _ = mt_grpo().advantages(group(rollout(0.0, "a"), rollout(0.0, "sa", [0.5])))
    np.testing.assert_allclose(direct, [-0.25 / (0.353553 + 1e-4)], atol=2e-6)


TREE = group(
    rollout(1.0, "ssa", [0.7, 0.2], nodes=[0, 1, 2]),
    rollout(0.0, "sa", [0.2], nodes=[3, 4]),
    rollout(0.5, "ssa", [0.7, 0.7], nodes=[0, 5, 6]),
    rollout(0.5, "a", nodes=[7]),
)


def test_tree_normalises_among_the_distinct_siblings() -> None:
    # A_O = ±1.224742, 0, 0. At the prompt 0.7 (held by two rollouts, counted once) and 0.2, the answer left out; after
    # node 0 there are 0.2 and 0.7. Both: ±0.25 / (0.353553 + 1e-4) = ±0.706907.
    trunk, second, third, direct = mt_grpo(form="tree").advantages(TREE)
    np.testing.assert_allclose(trunk, [1.224742 + 0.706907, 1.224742 - 0.706907, 1.224742], atol=5e-6)
    np.testing.assert_allclose(second, [-1.224742 - 0.706907, -1.224742], atol=5e-6)
    np.testing.assert_allclose(third, [0.706907, 0.706907, 0], atol=5e-6)
    assert direct.tolist() == [0]


def test_tree_compares_a_void_turn_with_its_siblings_as_a_failed_call() -> None:
    void, _ = mt_grpo(form="tree").advantages(group(rollout(0.0, "v"), rollout(0.0, "sa", [0.5])))
    assert void[0] < -0.7


def test_tree_of_chains_compares_first_turns_and_nothing_else() -> None:
    first, _ = mt_grpo(form="tree").advantages(group(rollout(0.0, "ssa", [0.7, 0.7]), rollout(0.0, "ssa", [0.2, 0.2])))
    np.testing.assert_allclose(first, [0.706907, 0, 0], atol=2e-6)


async def test_forms_bring_their_plan_and_their_turn_rewards() -> None:
    documents = {"d": Document("d", "Ada", "")}
    g = group(replace(trajectory(0.0, [1]), turns=(turn(docs=["d"]), turn(docs=["d"]), turn(kind=TurnKind.ANSWER))))
    rewards = {}
    for form in ("chains", "tree"):
        score_turns = mt_grpo(form=form).score_turns
        assert score_turns is not None
        rewards[form] = list((await score_turns()(g, documents)).rewards[0])
    assert rewards == {"chains": pytest.approx([0.7, 0, 0]), "tree": pytest.approx([0.7, 0.7, 0])}
    assert mt_grpo().plan is chains
    assert mt_grpo(form="tree").plan is siblings


@pytest.mark.parametrize(("params", "message"), [({"form": "forest"}, "form is 'forest'"), ({"lam": -1}, "lam is -1")])
def test_wrong_parameters_are_refused(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mt_grpo(**params)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    rollouts = []
    for _ in range(draw(st.integers(1, 5))):
        kinds = "s" * draw(st.integers(0, 3)) + draw(st.sampled_from("av"))
        rewards = [draw(st.sampled_from([0.0, 0.2, 0.5, 0.7])) if kind == "s" else 0.0 for kind in kinds]
        rollouts.append(rollout(draw(st.sampled_from([0.0, 0.5, 1.0])), kinds, rewards))
    return group(*rollouts)


@given(groups(), st.randoms(use_true_random=False), st.sampled_from(["chains", "tree"]))
def test_permuting_the_group_permutes_the_credit(g: Group, random, form: str) -> None:
    assert_order_is_nothing(mt_grpo(form=form), g, random)


@given(groups(), st.sampled_from(["chains", "tree"]))
def test_equal_turn_rewards_are_grpo_exactly(g: Group, form: str) -> None:
    equal = with_turn_rewards(g, [[0.0] * len(t.turns) for t in g.trajectories])
    assert_grpo(mt_grpo(form=form).advantages(equal), g)


@given(groups(), st.sampled_from(["chains", "tree"]))
def test_answers_after_a_search_keep_the_outcome_advantage(g: Group, form: str) -> None:
    for t, row, plain in zip(g.trajectories, mt_grpo(form=form).advantages(g), grpo().advantages(g), strict=True):
        if len(t.turns) > 1 and t.turns[-1].kind is TurnKind.ANSWER:
            assert row[-1] == plain[-1]
