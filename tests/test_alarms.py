"""When the sentinel speaks: histories whose answer is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.alarms import Alarm, Limits, alarms, healthy
from tests.test_collapse import noisy

# A healthy run of the pocket world, rounded: GRPO's first steps and its widest swings.
HEALTHY = {
    "rollout/high_ppl_ratio": [0.0] * 10,
    "policy/ppl": [1.14, 1.13, 1.12, 1.22, 1.19, 1.16, 1.18, 1.16, 1.12, 1.10],
    "policy/entropy": [0.125, 0.133, 0.116, 0.191, 0.167, 0.148, 0.166, 0.147, 0.115, 0.100],
    "rollout/repetition": [0.058, 0.059, 0.053, 0.064, 0.057, 0.094, 0.086, 0.082, 0.044, 0.048],
    "advantage/neg_pos_ratio": [0.83, 0.97, 0.83, 1.11, 1.25, 1.11, 1.07, 0.94, 1.16, 0.47],
}
LIMITS = Limits()


def steps(metrics: dict[str, list[float]]) -> list[dict[str, float]]:
    """Rows of metrics.jsonl, from the evaluation before training on."""
    count = max(len(values) for values in metrics.values())
    rows = [{"step": float(k + 1)} | {name: values[k] for name, values in metrics.items()} for k in range(count)]
    return [{"step": 0.0, "eval/f1": 0.3}, *rows]


def run(metric: str, values: list[float]) -> list[dict[str, float]]:
    """Five healthy steps, then steps that are healthy but for one metric."""
    metrics = {name: series[:5] + [series[5]] * len(values) for name, series in HEALTHY.items()}
    return steps(metrics | {metric: metrics[metric][:5] + values})


def test_healthy_runs_raise_no_alarm_at_any_step() -> None:
    history = steps(HEALTHY)
    assert [alarms(history[:end], LIMITS) for end in range(len(history) + 1)] == [[]] * (len(history) + 1)
    assert all(healthy(row, history, LIMITS) for row in history)


def test_ordinary_learning_raises_no_alarm() -> None:
    # Entropy halves and then doubles, longer rollouts repeat more, and a batch now and then is bad.
    ramp = np.linspace(0.14, 0.07, 20).tolist() + np.linspace(0.07, 0.3, 20).tolist()
    bad_batches = [0.3 if k % 3 else 0.0 for k in range(40)]
    assert alarms(steps({"policy/entropy": ramp, "rollout/high_ppl_ratio": bad_batches}), LIMITS) == []


@pytest.mark.parametrize(
    ("metric", "bad", "limit"),
    [
        ("rollout/high_ppl_ratio", 0.21, 0.2),
        ("policy/ppl", 1.8, 1.5 * 1.14),  # the median of the first five
        ("policy/entropy", 0.51, 0.5),  # 1.8 x 0.133 is still calm
        ("policy/entropy", 0.0005, 0.001),
        ("rollout/repetition", 0.41, 0.4),
        ("advantage/neg_pos_ratio", 5.1, 5.0),
    ],
)
def test_each_metric_alarms_after_patience_steps_beyond_its_limit(metric: str, bad: float, limit: float) -> None:
    history = run(metric, [bad] * 3)
    assert alarms(history[:-1], LIMITS) == []
    [alarm] = alarms(history, LIMITS)
    assert (alarm.metric, alarm.value, alarm.since_step) == (metric, bad, 6)
    assert alarm.limit == pytest.approx(limit)
    assert not healthy(history[-1], history, LIMITS)


def test_steps_without_any_advantage_alarm_from_the_first_step_on() -> None:
    history = steps({"advantage/zero_share": [1.0, 1.0, 1.0, 1.0]})
    assert alarms(history[:3], LIMITS) == []
    [alarm] = alarms(history, LIMITS)
    assert (alarm.metric, alarm.since_step) == ("advantage/zero_share", 1)
    assert alarm.text.startswith(
        "no group had an advantage in the last 4 steps, since step 1: all rollouts of a question"
    )
    assert alarms(history, Limits(no_advantage_steps=5)) == []
    assert alarms(history, Limits(no_advantage_steps=0)) == []


def test_a_step_without_any_advantage_is_not_healthy() -> None:
    assert not healthy({"advantage/zero_share": 1.0}, [], LIMITS)
    assert healthy({"advantage/zero_share": 0.99}, [], LIMITS)
    assert healthy({"advantage/zero_share": 1.0}, [], Limits(no_advantage_steps=0))


def test_one_group_with_an_advantage_ends_such_steps() -> None:
    assert alarms(steps({"advantage/zero_share": [1.0, 1.0, 0.998, 1.0, 1.0]}), LIMITS) == []
    rows = steps(HEALTHY | {"advantage/zero_share": [0.2] * 7 + [1.0] * 3})
    assert [alarm.since_step for alarm in alarms(rows, LIMITS)] == [8]
    assert alarms(rows[:-1], LIMITS) == []


def rewarded(values: Sequence[float]) -> list[dict[str, float]]:
    return steps({"reward/mean": list(values)})


def test_a_fall_of_the_reward_is_of_a_mean_of_ten_steps_from_the_best_such_mean() -> None:
    # Means of ten: 0.5 at step 10, 1.0 at step 20, then 0.9, 0.8, ... 0.3 at step 27, 0.2 at step 28.
    history = rewarded([0.5] * 10 + [1.0] * 10 + [0.0] * 10)
    assert alarms(history[:28], LIMITS) == []
    assert alarms(history[:29], LIMITS) == [
        Alarm(
            metric="reward/mean",
            value=pytest.approx(0.2),
            limit=pytest.approx(0.3),
            since_step=28,
            text=(
                "reward/mean is 0.2 in the mean of the last 10 steps: below 0.3 x 1, the best such mean, since step 28"
            ),
        )
    ]
    assert [alarm.since_step for alarm in alarms(history, LIMITS)] == [28]
    assert [alarm.since_step for alarm in alarms(history, Limits(reward_fall=0.5))] == [26]
    assert alarms(history, Limits(reward_fall=0.0)) == []
    # What is kept to go back to has 0.75 of the best.
    assert [healthy(row, history, LIMITS) for row in history[20:]] == [True] * 3 + [False] * 8
    assert not healthy(history[-1], history[:-1], LIMITS)
    assert healthy(history[-1], history, Limits(reward_fall=0.0))


def test_the_reward_that_comes_back_ends_its_alarm_and_a_second_fall_is_another() -> None:
    history = rewarded([1.0] * 10 + [0.0] * 10 + [1.0] * 10 + [0.0] * 9)
    assert [alarm.since_step for alarm in alarms(history[:23], LIMITS)] == [18]
    assert alarms(history[:24], LIMITS) == []  # a mean of 0.3 after three good steps
    assert [alarm.since_step for alarm in alarms(history, LIMITS)] == [38]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.3] * 10 + [0.09] * 14, id="at the bound"),
        pytest.param([0.09] * 10 + [0.0] * 14, id="had nothing to lose"),
        pytest.param([-0.1] * 10 + [-2.0] * 14, id="rewards below 0"),
        pytest.param([0.0] * 14, id="none ever"),
        pytest.param([1.0] + [0.0] * 8, id="shorter than a mean"),
        pytest.param([0.5] * 10 + [0.0] * 6 + [0.5] * 10, id="a dip of six steps, a mean of 0.2"),
    ],
)
def test_what_is_no_fall_of_the_reward(values: list[float]) -> None:
    history = rewarded(values)
    assert [alarms(history[:end], LIMITS) for end in range(len(history) + 1)] == [[]] * (len(history) + 1)


def test_a_reward_that_is_no_number_is_a_fall_and_sets_no_best() -> None:
    history = rewarded([0.5] * 11 + [math.nan] + [0.5] * 11)
    assert [alarm.metric for alarm in alarms(history[:13], LIMITS)] == ["reward/mean"]
    assert alarms(history, LIMITS) == []
    assert alarms(rewarded([math.nan] * 14), LIMITS) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_sampling_noise_of_small_steps_is_no_fall(seed: int) -> None:
    history = rewarded(noisy(np.linspace(0.25, 0.6, 60).tolist(), size=0.12, seed=seed))
    assert all(alarms(history[:end], LIMITS) == [] for end in range(len(history) + 1))


def test_a_value_at_its_limit_is_not_beyond_it() -> None:
    assert alarms(run("rollout/high_ppl_ratio", [0.2] * 5), LIMITS) == []
    assert alarms(run("policy/entropy", [0.001] * 5), LIMITS) == []


def test_the_entropy_of_a_livelier_policy_is_measured_by_its_own_baseline() -> None:
    history = steps({"policy/entropy": [0.4] * 5 + [0.71] * 3 + [0.73] * 3})
    assert alarms(history[:9], LIMITS) == []
    [alarm] = alarms(history, LIMITS)
    assert alarm.limit == pytest.approx(0.72)


def test_an_alarm_says_in_words_what_and_since_when() -> None:
    history = run("policy/ppl", [4.0] * 3)
    assert alarms(history, LIMITS) == [
        Alarm(
            metric="policy/ppl",
            value=4.0,
            limit=1.5 * 1.14,
            since_step=6,
            text=(
                "policy/ppl is 4: above 1.71 (1.5 x 1.14, the median of the first 5 healthy steps) "
                "in the last 3 steps, since step 6"
            ),
        )
    ]
    [alarm] = alarms(run("policy/entropy", [0.0]), Limits(patience=1))
    assert alarm.text == "policy/entropy is 0: below 0.001 in the last 1 step, since step 6"


def test_a_step_within_the_limit_ends_the_run_of_steps_beyond_it() -> None:
    assert alarms(run("rollout/repetition", [0.9, 0.9, 0.1, 0.9, 0.9]), LIMITS) == []
    [alarm] = alarms(run("rollout/repetition", [0.9, 0.1, 0.9, 0.9, 0.9, 0.9]), LIMITS)
    assert alarm.since_step == 8
    assert alarms(run("rollout/repetition", [0.9, 0.9, 0.9, 0.1]), LIMITS) == []


def test_a_step_that_did_not_measure_a_metric_neither_continues_nor_ends_its_run() -> None:
    history = run("advantage/neg_pos_ratio", [9.0, 9.0, 9.0, 9.0])
    del history[7]["advantage/neg_pos_ratio"]
    assert alarms(history[:-1], LIMITS) == []
    [alarm] = alarms(history, LIMITS)
    assert alarm.since_step == 6


def test_a_run_that_measures_nothing_has_no_alarm_and_counts_as_healthy() -> None:
    history = [{"step": float(k), "reward/f1": 0.0} for k in range(30)]
    assert alarms(history, LIMITS) == []
    assert healthy(history[-1], history, LIMITS)


def test_a_value_that_is_no_number_is_beyond_every_limit() -> None:
    metrics = {alarm.metric for alarm in alarms(run("policy/entropy", [math.nan] * 3), LIMITS)}
    assert metrics == {"policy/entropy"}
    assert not healthy({"policy/entropy": math.nan}, [], LIMITS)


def test_no_alarm_before_the_baseline_is_over_and_one_at_its_first_step_after() -> None:
    history = steps({"rollout/high_ppl_ratio": [0.0, 0.0, 0.9, 0.9, 0.9, 0.9]})
    assert alarms(history[:-1], LIMITS) == []
    [alarm] = alarms(history, LIMITS)
    assert alarm.since_step == 3


def test_steps_beyond_an_absolute_limit_set_no_baseline() -> None:
    # Two healthy steps, a blow-up, then recovery: the baseline is of healthy steps alone, so that 3.5 is too much.
    ppl = [1.1, 1.1, 400.0, 400.0, 400.0, 400.0, 1.1, 1.1, 1.1, 3.5, 3.5, 3.5]
    high = [0.0, 0.0, 0.9, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    [alarm] = alarms(steps({"policy/ppl": ppl, "rollout/high_ppl_ratio": high}), LIMITS)
    assert (alarm.metric, alarm.since_step) == ("policy/ppl", 10)


def test_before_a_baseline_health_asks_the_absolute_limits_alone() -> None:
    assert healthy({"policy/ppl": 40.0}, [], LIMITS)
    assert not healthy({"policy/ppl": 40.0, "rollout/high_ppl_ratio": 0.3}, [], LIMITS)


@pytest.mark.parametrize("metric", sorted(HEALTHY))
def test_every_limit_can_be_turned_off(metric: str) -> None:
    off = Limits(
        **dict.fromkeys(("high_ppl_ratio", "ppl_factor", "entropy_factor", "repetition", "neg_pos_ratio"), math.inf),
        entropy_floor=0.0,
    )
    for bad in (1e9, 0.0):
        history = run(metric, [bad] * 5)
        assert alarms(history, off) == []
        assert healthy(history[-1], history, off)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limits(patience=0), r"patience\n.*greater than or equal to 1"),
        (lambda: Limits(baseline_steps=0), r"baseline_steps\n.*greater than or equal to 1"),
        (lambda: Limits(ppl_factor=1.0), r"ppl_factor\n.*greater than 1"),
        (lambda: Limits(entropy_factor=math.nan), r"entropy_factor\n"),
        (lambda: Limits(repetition=0.0), r"repetition\n.*greater than 0"),
        (lambda: Limits(entropy_floor=math.inf), r"entropy_floor\n.*less than inf"),
        (lambda: Limits(entropy_floor=-1.0), r"entropy_floor\n.*greater than or equal to 0"),
        (lambda: Limits(reward_fall=1.0), r"reward_fall\n.*less than 1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(make: Callable[[], Limits], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@given(st.lists(st.floats(0, 2), min_size=1, max_size=20), st.integers(1, 4))
def test_an_alarm_means_that_none_of_the_last_patience_steps_was_healthy(values: list[float], patience: int) -> None:
    limits = Limits(patience=patience)
    history = steps({"rollout/repetition": values})
    raised = alarms(history, limits)
    unhealthy = [not healthy(row, history, limits) for row in history[-patience:]]
    assert bool(raised) == (len(values) > limits.baseline_steps and len(values) >= patience and all(unhealthy))
