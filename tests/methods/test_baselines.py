"""How rewards become advantages, by hand, under every method that compares rollouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from calibadv.advantages.group import group_advantages, outcome_credit
from calibadv.batching import GroupShard
from calibadv.methods import make_method
from calibadv.methods.rows import credit_rows, step_credit, step_facts
from calibadv.types import Credit
from tests.build import group, trajectory

REWARDS = [1.0, 0.0, 0.5, 0.1]  # mean 0.4, unbiased deviation sqrt(0.62 / 3)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("grpo", [value / (0.62 / 3) ** 0.5 for value in (0.6, -0.4, 0.1, -0.3)]),
        ("dr_grpo", [0.6, -0.4, 0.1, -0.3]),
        ("rloo", [1 - 0.6 / 3, 0 - 1.6 / 3, 0.5 - 1.1 / 3, 0.1 - 1.5 / 3]),
        ("maxrl", [1.5, -1, 0.25, -0.75]),
        ("reinforce++", [0.6, -0.4, 0.1, -0.3]),
    ],
)
def test_baselines_by_hand(baseline: Any, expected: list[float]) -> None:
    assert group_advantages(REWARDS, baseline).tolist() == pytest.approx(expected, abs=1e-5)


BASELINES = ("grpo", "dr_grpo", "rloo", "maxrl", "reinforce++")


@pytest.mark.parametrize("baseline", BASELINES)
def test_equal_rewards_are_exact_zeros_and_one_alone_keeps_its_own(baseline: Any) -> None:
    assert group_advantages([0.1 + 0.2, 0.3, 0.3], baseline).tolist() == [0, 0, 0]
    assert group_advantages([0.7], baseline).tolist() == pytest.approx([0.7], abs=1e-5)


def test_maxrl_of_rewards_without_a_positive_mean_is_zero() -> None:
    assert group_advantages([-1.0, 0.0, 1.0], "maxrl").tolist() == [0, 0, 0]
    assert group_advantages([-1.0, 0.0], "maxrl").tolist() == [0, 0]


def flat(credit: Credit) -> list[float]:
    return [float(value) for row_N in credit for value in row_N]


def test_by_default_credit_is_to_the_bit_what_it_was() -> None:
    told = group(*(trajectory(reward, [2, 1], [["a"]]) for reward in REWARDS))
    rewards = np.array(REWARDS)
    then = ((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)).astype(np.float32)
    assert flat(make_method("grpo", {}).advantages(told)) == [float(a) for a in then for _ in range(3)]
    assert flat(make_method("grpo", {}).advantages(told)) == flat(outcome_credit(told))


def test_calibadv_calibrates_the_baselines_credit() -> None:
    # Rollout 0 alone is right and found a and b; rollout 1's search found a and x: half of it is silver.
    told = group(trajectory(1.0, [1, 1], [["a", "b"]]), trajectory(0.0, [1, 2], [["a", "x"]]))
    right, wrong = make_method("calibadv", {"baseline": "rloo"}).advantages(told)
    assert right.tolist() == pytest.approx([1.0, 2.0])  # N / P of the answers: 2 tokens of -1, 1 of 1
    assert wrong.tolist() == pytest.approx([-0.5, -1.0, -1.0])
    right, wrong = make_method("calibadv", {"baseline": "maxrl"}).advantages(told)
    assert right.tolist() == pytest.approx([1.0, 2.0])
    assert wrong.tolist() == pytest.approx([-0.5, -1.0, -1.0])


def test_added_advantages_keep_their_own_scale() -> None:
    told = group(trajectory(1.0, [1, 1], [["a"]]), trajectory(0.0, [1, 1], [["b"]]))
    for name in ("mt_grpo", "gigpo", "criticsearch", "tree_grpo"):
        zero = {"mt_grpo": {"lam": 0}, "gigpo": {"omega": 0}, "criticsearch": {"alpha": 0}}.get(name, {})
        right, wrong = make_method(name, {"baseline": "dr_grpo", **zero}).advantages(told)
        factor = 2 if name == "tree_grpo" else 1  # both rollouts are of one tree
        assert right.tolist() == pytest.approx([0.5 * factor] * 2)
        assert wrong.tolist() == pytest.approx([-0.5 * factor] * 2)


def test_reinforce_plus_plus_divides_by_the_deviation_of_the_step() -> None:
    groups = [
        group(trajectory(1.0, [1]), trajectory(0.0, [1])),  # 0.5, -0.5
        group(trajectory(0.4, [1]), trajectory(0.4, [1])),  # 0, 0
        group(trajectory(0.2, [1]), trajectory(0.0, [1])),  # 0.1, -0.1
    ]
    deviation = ((0.25 + 0.25 + 0.01 + 0.01) / 5) ** 0.5
    facts = step_facts(groups)
    assert facts.deviation == pytest.approx(deviation)
    for name in ("grpo", "first_exposure", "lld", "simpletir"):
        method = make_method(name, {"baseline": "reinforce++"})
        values = [flat(step_credit(each, method, facts)) for each in groups]
        assert values == [pytest.approx([v / deviation, -v / deviation], rel=1e-5) for v in (0.5, 0.0, 0.1)]
    rows = credit_rows(GroupShard(groups[0], (0, 0)), make_method("grpo", {"baseline": "reinforce++"}), facts)
    assert rows[0].advantages_N.tolist() == pytest.approx([0.5 / deviation], rel=1e-5)
    assert rows[0].advantages_N.dtype == np.float32


def test_the_scale_of_the_step_commutes_with_calibration() -> None:
    told = group(trajectory(1.0, [1, 1], [["a", "b"]]), trajectory(0.0, [1, 2], [["a", "x"]]))
    facts = step_facts([told])
    plain = make_method("calibadv", {"baseline": "dr_grpo"}).advantages(told)
    scaled = step_credit(told, make_method("calibadv", {"baseline": "reinforce++"}), facts)
    assert flat(scaled) == pytest.approx([value / 0.5**0.5 for value in flat(plain)], rel=1e-5)


@pytest.mark.parametrize("name", ["mt_grpo", "gigpo", "criticsearch"])
def test_a_scale_of_the_step_is_refused_beside_another(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"'reinforce\+\+', which divides .* and {name} adds .* expected 'grpo', 'dr_grpo'"
    ):
        make_method(name, {"baseline": "reinforce++"})


@pytest.mark.parametrize("name", ["ppo", "stepsearch", "w_reinforce"])
def test_methods_that_compare_nothing_have_no_baseline(name: str) -> None:
    with pytest.raises(ValueError, match=f"method '{name}' has no parameter 'baseline'"):
        make_method(name, {"baseline": "rloo"})


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match=r"baseline = 'median': Input should be 'grpo', 'dr_grpo', 'rloo'"):
        make_method("grpo", {"baseline": "median"})


def test_one_rollout_a_question_has_a_mean_of_zero_under_reinforce_plus_plus() -> None:
    groups = [group(trajectory(reward, [1])) for reward in (1.0, 0.0, 0.5)]
    method, facts = make_method("grpo", {"baseline": "reinforce++"}), step_facts(groups)
    credit = [float(step_credit(of, method, facts)[0][0]) for of in groups]
    assert facts.deviation == pytest.approx((1.25 / 2) ** 0.5)
    assert credit == pytest.approx([1 / facts.deviation, 0, 0.5 / facts.deviation], rel=1e-4)
