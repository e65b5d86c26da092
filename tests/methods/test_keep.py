"""Which groups train, and that the others are nowhere in an update."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from calibadv.config import LearnerConfig, load_config
from calibadv.lab.learner import LabLearner
from calibadv.lab.policy import Policy
from calibadv.methods import make_method
from calibadv.methods.keep import kept_groups, with_keep
from calibadv.types import Group
from calibadv.user_code import hand_in
from tests.build import group, trajectory

VARIED = group(trajectory(1.0, [2, 1], [["a"]]), trajectory(0.0, [1, 1], [["b"]]))
EQUAL = group(trajectory(0.4, [2, 1], [["a"]]), trajectory(0.4, [1, 2], [["b"]]))


@pytest.mark.parametrize("name", ["grpo", "calibadv", "simpletir", "lld", "first_exposure", "tree_grpo"])
def test_groups_of_equal_rewards_have_no_credit(name: str) -> None:
    method = with_keep(make_method(name, {}), "credited")
    assert kept_groups([EQUAL, VARIED, EQUAL], method) == [VARIED]


def test_one_rollout_with_credit_is_enough() -> None:
    spread = group(*(trajectory(reward, [1]) for reward in (1.0, 0.5, 0.0)))  # the second has none
    assert kept_groups([spread], with_keep(make_method("grpo", {}), "credited")) == [spread]


def test_what_has_credit_for_a_method_stays() -> None:
    # A lone reward of turns, or a whole group of wrong rollouts, teaches something to methods that say so.
    assert kept_groups([EQUAL], with_keep(make_method("w_reinforce", {}), "credited")) == [EQUAL]
    shorter = group(trajectory(0.4, [2, 1, 1], [["a"], ["b"]]), trajectory(0.4, [1, 2], [["b"]]))
    assert kept_groups([shorter], with_keep(make_method("gigpo", {}), "credited")) == [shorter]


def test_by_default_all_train() -> None:
    assert make_method("grpo", {}).keep is None
    assert kept_groups([EQUAL, VARIED], with_keep(make_method("grpo", {}), "all")) == [EQUAL, VARIED]


def test_a_function_of_one_s_own_says_which() -> None:
    def short(given: Group) -> bool:
        return sum(t.num_actions for t in given.trajectories) < 6

    config = load_config(None, {"method.keep": hand_in(short)})
    assert kept_groups([EQUAL, VARIED], config.run_method()) == [VARIED]


def test_a_choice_that_exits_is_an_error_and_ends_no_engine() -> None:
    with pytest.raises(RuntimeError, match=r"it raised SystemExit\(3\)"):
        kept_groups([EQUAL], load_config(None, {"method.keep": hand_in(leaves)}).run_method())


def leaves(_: Group) -> bool:
    sys.exit(3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method.keep": "credit"}, r"method.keep = 'credit' is not known \(did you mean 'credited'\?\)"),
        ({"method.keep": "credited", "method.name": "ppo"}, "'ppo' come from a critic, which learns of equal rewards"),
        ({"method.spare_questions": 2}, "method.keep = 'all' drops none: set method.keep 'credited'"),
        ({"method.keep": "math:pi"}, "method.keep = 'math:pi' is no function"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_config(None, given)


def learned(groups: list[Group], keep: str, baseline: str = "grpo") -> tuple[dict[str, float], Policy, list[Any]]:
    """An update of one small policy; its numbers, its weights after it, and the credit that trained."""
    torch.manual_seed(0)
    policy = copy.deepcopy(Policy())
    settings = LearnerConfig(lr=1e-3, lr_final=1e-3, weight_decay=0.0, grad_clip=1e9, kl_coef=0.1)
    learner = LabLearner(policy, with_keep(make_method("grpo", {"baseline": baseline}), keep), settings)
    updated = learner.update(groups, updates=1, seed=0)
    return updated.metrics, policy, updated.credit


@pytest.mark.parametrize("baseline", ["grpo", "reinforce++"])  # the latter's deviation is the whole step's
def test_a_dropped_group_is_in_no_term_and_in_no_divisor(baseline: str) -> None:
    other = replace(EQUAL, question=replace(EQUAL.question, id="test/equal"))
    alone, by_itself, _ = learned([VARIED], "all", baseline)
    gated, trained, credit = learned([other, VARIED], "credited", baseline)
    assert gated.pop("learner/kept_share") == 0.5
    assert gated == alone
    pairs = zip(trained.parameters(), by_itself.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [[row_N.any() for row_N in rows] for rows in credit] == [[False, False], [True, True]]
    assert learned([other, VARIED], "all")[0]["learner/tokens"] > gated["learner/tokens"]


def test_a_step_without_any_group_makes_no_update() -> None:
    metrics, policy, (rows,) = learned([EQUAL], "credited")
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), Policy().parameters(), strict=True))
    assert (metrics["learner/updates"], metrics["learner/kept_share"]) == (0, 0)
    assert [len(row_N) for row_N in rows] == [3, 3]
