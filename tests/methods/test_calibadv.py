"""The golden vectors of the method, its switches, and the properties that hold for any group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.advantages.steps import step_slices
from calibadv.methods import METHODS, make_method
from calibadv.rewards.turns import with_turn_rewards
from calibadv.types import Group, TurnKind
from tests.build import group, trajectory, turn
from tests.methods.checks import assert_grpo, assert_order_is_nothing

# r1's first step finds two of r0's silver documents among its three; r2 (reward 0.5) is not correct.
SILVER = [["s1", "s2", "s3"]]
GOLDEN = group(
    trajectory(1.0, [2, 1], SILVER),
    trajectory(0.0, [2, 2], [["s1", "s2", "x"]]),
    trajectory(0.5, [2, 3], [["y"]]),
)


def test_golden_vector_softens_the_good_search_and_rebalances_the_answer() -> None:
    r0, r1, r2 = METHODS["calibadv"]().advantages(GOLDEN)
    np.testing.assert_allclose(r0, [1, 1, 2], atol=1e-5)
    np.testing.assert_allclose(r1, [-1 / 3, -1 / 3, -1, -1], atol=1e-5)
    np.testing.assert_array_equal(r2, np.zeros(5))


def test_golden_vector_without_soft_penalty_and_with_lambda_two() -> None:
    r0, r1, _ = METHODS["calibadv"](soft_pen="none", lam=2).advantages(GOLDEN)
    np.testing.assert_allclose(r0, [1, 1, 4], atol=1e-5)
    np.testing.assert_allclose(r1, [-1, -1, -1, -1], atol=1e-5)


def test_golden_vector_scales_long_positive_answers_down() -> None:
    r0, _, _ = METHODS["calibadv"]().advantages(
        group(trajectory(1.0, [2, 3]), trajectory(0.0, [2, 1]), trajectory(0.5, [2, 2]))
    )
    np.testing.assert_allclose(r0, [1, 1, 1 / 3, 1 / 3, 1 / 3], atol=1e-5)


SWEEP = {"soft_pen": "none", "pre_think": False, "adv_reb_at": "every_step"}


def test_the_papers_sweep_of_lambda_rebalances_every_step_index() -> None:
    # A = +1, -1, 0. First turns: P = 2 of two tokens, N = 3 of three; second turns: P = 1, N = 2; third turns: none.
    g = group(trajectory(1.0, [2, 1]), trajectory(0.0, [3, 2]), trajectory(0.5, [1, 1, 2]))
    r0, r1, r2 = METHODS["calibadv"](**SWEEP).advantages(g)
    np.testing.assert_allclose(r0, [1.5, 1.5, 2], atol=1e-5)
    np.testing.assert_allclose(r1, [-1] * 5, atol=1e-5)
    np.testing.assert_array_equal(r2, np.zeros(4))
    r0, _, _ = METHODS["calibadv"](**SWEEP, lam=2).advantages(g)
    np.testing.assert_allclose(r0, [3, 3, 4], atol=1e-5)
    assert METHODS["calibadv"](**SWEEP).prefill == ""


def test_a_step_index_that_only_one_side_reaches_keeps_its_credit() -> None:
    # Second turns: r0 alone, P = 2 and N = 0.
    g = group(trajectory(1.0, [1, 2]), trajectory(0.0, [4]), trajectory(0.5, [1]))
    np.testing.assert_allclose(METHODS["calibadv"](**SWEEP).advantages(g)[0], [4, 1, 1], atol=1e-5)
    zeroed = METHODS["calibadv"](**SWEEP, one_sided="zero").advantages(g)[0]
    np.testing.assert_allclose(zeroed, [4, 0, 0], atol=1e-5)


@pytest.mark.parametrize("soft_pen", ["silver", "uniform", "turns"])
def test_a_step_that_called_another_tool_keeps_grpos_advantage(soft_pen: str) -> None:
    right, wrong = trajectory(1, [2, 1], docs=[["a"]]), trajectory(0, [2, 2, 1], docs=[["a"], ["b"]])
    searched, other = (replace(each, reward=0.8) for each in (wrong.turns[0], turn(2, kind=TurnKind.CALL)))
    called = replace(wrong, turns=(searched, other, wrong.turns[2]))
    _, row_N = METHODS["calibadv"](soft_pen=soft_pen, adv_reb=False).advantages(group(right, called))
    _, grpo_N = METHODS["grpo"]().advantages(group(right, called))
    np.testing.assert_array_equal(row_N[2:4], grpo_N[2:4])
    assert np.all(row_N[:2] > grpo_N[:2])


def test_uniform_penalty_halves_every_negative_intermediate_advantage() -> None:
    _, r1, _ = METHODS["calibadv"](soft_pen="uniform").advantages(GOLDEN)
    np.testing.assert_allclose(r1, [-0.5, -0.5, -1, -1], atol=1e-5)


JUDGE = {"soft_pen": "judge", "judge_url": "http://127.0.0.1:8000/v1", "judge_model": "judge"}


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_judge_scores_soften_negative_intermediate_advantages_in_place_of_silver(preset: str) -> None:
    method = METHODS["calibadv"](preset, **JUDGE)
    # r1's search is partially helpful; what its documents are and the reward of its answer turn do not matter.
    judged = with_turn_rewards(GOLDEN, [[1, 0], [0.5, 1], [0, 0]])
    assert [row.tolist() for row in method.scores(judged)] == [[1.0], [0.5], [0.0]]
    r0, r1, _ = method.advantages(judged)
    np.testing.assert_allclose(r0, [1, 1, 2], atol=1e-5)
    np.testing.assert_allclose(r1, [-0.5, -0.5, -1, -1], atol=1e-5)


def test_a_judge_that_never_answered_leaves_grpo() -> None:
    silent = METHODS["calibadv"](**JUDGE, adv_reb=False).advantages(GOLDEN)
    assert_grpo(silent, GOLDEN)


def test_turns_are_scored_only_where_a_judge_is_asked() -> None:
    assert METHODS["calibadv"](**JUDGE).score_turns is not None
    assert all(METHODS["calibadv"](soft_pen=soft_pen).score_turns is None for soft_pen in ("silver", "uniform", "none"))


def test_pre_think_is_the_prefill_and_can_be_turned_off() -> None:
    assert METHODS["calibadv"]().prefill == "<think>"
    assert METHODS["calibadv"](pre_think=False).prefill == ""
    assert METHODS["grpo"]().prefill == ""


def test_one_sided_group_is_kept_by_paper_and_zeroed_at_the_answer_by_reference() -> None:
    # The only negative final step has no tokens, so N = 0 while P > 0.
    one_sided = group(trajectory(1.0, [2, 1], SILVER), trajectory(0.0, [2, 0]))
    a = np.sqrt(0.5)
    np.testing.assert_allclose(METHODS["calibadv"]().advantages(one_sided)[0], [a, a, a], atol=1e-5)
    np.testing.assert_allclose(METHODS["calibadv"]("reference").advantages(one_sided)[0], [a, a, 0], atol=1e-5)
    # And the other way round: the only positive one has none.
    one_sided = group(trajectory(1.0, [2, 0], SILVER), trajectory(0.0, [2, 1]))
    np.testing.assert_allclose(METHODS["calibadv"]().advantages(one_sided)[1], [-a, -a, -a], atol=1e-5)
    np.testing.assert_allclose(METHODS["calibadv"]("reference").advantages(one_sided)[1], [-a, -a, 0], atol=1e-5)


def test_reference_does_not_score_malformed_rollouts_but_paper_does() -> None:
    malformed = group(trajectory(1.0, [2, 1], SILVER), trajectory(1.0, [2, 2], SILVER, format_reward=0.0))
    assert METHODS["calibadv"]().scores(malformed)[1].tolist() == [1.0]
    assert METHODS["calibadv"]("reference").scores(malformed)[1].tolist() == [0.0]


def test_each_switch_overrides_its_preset() -> None:
    malformed = group(trajectory(1.0, [2, 1], SILVER), trajectory(1.0, [2, 2], SILVER, format_reward=0.0))
    assert METHODS["calibadv"]("reference", well_formed_only=False).scores(malformed)[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("calibad", {}, "did you mean 'calibadv'"),
        ("calibadv", {"lamb": 1.0}, "did you mean 'lam'"),
        ("calibadv", {"lam": 0.0}, "lam is 0.0, expected a positive ratio"),
        ("calibadv", {"preset": "papr"}, "preset is 'papr'"),
        ("calibadv", {"soft_pen": "half"}, "soft_pen = 'half'"),
        ("calibadv", {"soft_pen": "judge"}, "judge_url is '', expected the address of an OpenAI-compatible API"),
        ("calibadv", {**JUDGE, "judge_model": ""}, "judge_model is ''"),
        ("calibadv", {**JUDGE, "judge_retries": -1}, "judge_retries is -1"),
        ("grpo", {"lam": 1.0}, "parameters: baseline"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_right_one(name: str, params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make_method(name, params)


documents = st.lists(st.sampled_from("abcdefg"), max_size=3)


@st.composite
def rollouts(draw: st.DrawFn) -> Group:
    trajectories = []
    for _ in range(draw(st.integers(1, 6))):
        lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
        docs = [draw(documents) for _ in lengths[:-1]]
        reward = draw(st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]))
        trajectories.append(trajectory(reward, lengths, docs, format_reward=draw(st.sampled_from([0.0, 1.0]))))
    return group(*trajectories)


@given(rollouts(), st.sampled_from([0.5, 1.0, 2.0]))
def test_the_sweep_gives_each_step_index_lambda_times_its_negative_mass(g: Group, lam: float) -> None:
    credit = METHODS["calibadv"](**SWEEP, lam=lam).advantages(g)
    for index in range(max(len(t.turns) for t in g.trajectories)):
        rows = [
            row[step_slices(t)[index]] for row, t in zip(credit, g.trajectories, strict=True) if index < len(t.turns)
        ]
        tokens = np.concatenate(rows, dtype=np.float64)
        positive, negative = tokens[tokens > 0].sum(), -tokens[tokens < 0].sum()
        assert positive == pytest.approx(lam * negative, rel=1e-4) or 0 in (positive, negative)


def final_masses(g: Group, credit: list[np.ndarray]) -> tuple[float, float]:
    final = np.concatenate([row[step_slices(t)[-1]] for row, t in zip(credit, g.trajectories, strict=True)])
    return float(final[final > 0].sum()), float(-final[final < 0].sum())


@given(rollouts(), st.sampled_from([0.5, 1.0, 2.0]))
def test_positive_mass_at_the_answer_is_lambda_times_the_negative_mass(g: Group, lam: float) -> None:
    before = final_masses(g, METHODS["calibadv"](adv_reb=False).advantages(g))
    positive, negative = final_masses(g, METHODS["calibadv"](lam=lam).advantages(g))
    if min(before) > 0:
        assert positive == pytest.approx(lam * negative, rel=1e-4)
    else:
        assert (positive, negative) == before


@given(rollouts())
def test_empty_silver_set_reduces_the_soft_penalty_to_grpo(g: Group) -> None:
    nobody_correct = METHODS["calibadv"](adv_reb=False, correct_threshold=1.1).advantages(g)
    assert_grpo(nobody_correct, g)


@given(rollouts(), st.randoms(use_true_random=False), st.sampled_from(["paper", "reference"]))
def test_permuting_the_group_permutes_the_credit(g: Group, random, preset: str) -> None:
    assert_order_is_nothing(METHODS["calibadv"](preset), g, random, 1e-6)


# W-REINFORCE compares nothing: it has a value for right and one for wrong.
COMPARING = [name for name in sorted(METHODS) if METHODS[name]().critic is None and name != "w_reinforce"]


@given(rollouts(), st.sampled_from(COMPARING))
def test_equal_rewards_give_exact_zeros_without_a_critic(g: Group, name: str) -> None:
    equal = group(*(trajectory(0.3, [len(turn.action_ids) for turn in t.turns]) for t in g.trajectories))
    if len(equal.trajectories) > 1:
        # With gamma < 1 GiGPO ranks the earlier of two equal answers higher, by its formula.
        method = METHODS[name](gamma=1.0) if name == "gigpo" else METHODS[name]()
        assert all(not row.any() for row in method.advantages(equal))


@given(rollouts())
def test_no_method_ever_flips_a_sign(g: Group) -> None:
    plain = METHODS["grpo"]().advantages(g)
    for preset in ("paper", "reference"):
        for row, base in zip(METHODS["calibadv"](preset).advantages(g), plain, strict=True):
            assert (row * base >= 0).all()
