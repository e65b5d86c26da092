"""When a run collapsed: curves whose answer is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.collapse import collapse_step

DECAY = [0.5 * 0.4**k for k in range(1, 9)]  # 0.2, 0.08, … : below half from its first value on


def noisy(values: Sequence[float], size: float = 0.05, seed: int = 0) -> list[float]:
    """The curve with the sampling error of a small step."""
    noise = np.random.default_rng(seed).normal(0, size, len(values))
    return np.clip(np.asarray(values) + noise, 0, 1).tolist()


@pytest.mark.parametrize("steps", [12, 16, 25, 40, 205])
def test_a_sharp_fall_is_found_at_its_first_step_in_short_and_long_runs(steps: int) -> None:
    healthy_steps = steps * 2 // 3
    assert collapse_step([0.5] * healthy_steps + [0.05] * (steps - healthy_steps)) == healthy_steps


@pytest.mark.parametrize("seed", range(5))
def test_a_fall_under_sampling_noise_is_found_within_two_steps(seed: int) -> None:
    step = collapse_step(noisy([0.3 + 0.01 * k for k in range(20)] + DECAY + [0.02] * 4, seed=seed))
    assert step is not None
    assert abs(step - 20) <= 2


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("steps", [12, 16, 40])
def test_a_noisy_learning_curve_does_not_collapse(steps: int, seed: int) -> None:
    assert collapse_step(noisy(np.linspace(0.25, 0.6, steps).tolist(), seed=seed)) is None


@pytest.mark.parametrize(
    "curve",
    [
        pytest.param([0.5] * 12 + [0.05] * 6 + [0.5] * 12, id="a dip that recovers"),
        pytest.param(np.linspace(0.6, 0.4, 40).tolist(), id="a slow decline of a third"),
        pytest.param([0.0] * 40, id="always zero"),
        pytest.param([0.08] * 10 + [0.0] * 30, id="never rose above the minimum"),
        pytest.param([0.5] * 38 + [0.0] * 2, id="too late to be called sustained"),
        pytest.param([0.5, 0.5, 0.0, 0.0, 0.0], id="shorter than two windows"),
        pytest.param([], id="nothing"),
    ],
)
def test_no_collapse(curve: list[float]) -> None:
    assert collapse_step(curve) is None


def test_a_collapse_in_the_last_window_counts_and_one_step_later_does_not() -> None:
    # 20 steps: windows of 4
    assert collapse_step([0.5] * 16 + [0.0] * 4) == 16
    assert collapse_step([0.5] * 17 + [0.0] * 3) is None


def test_ten_steps_are_enough_however_long_the_run() -> None:
    assert collapse_step([0.5] * 195 + [0.0] * 10) == 195


def test_a_low_value_of_a_window_that_still_held_is_no_part_of_the_fall() -> None:
    # Windows of 3, bound 0.25: (0.2, 0.3, 0.3) holds, (0.3, 0.3, 0.1) is below, and 0.1 its first value below.
    assert collapse_step([0.5] * 6 + [0.2, 0.3, 0.3, 0.1] + [0.05] * 6) == 9


def test_a_slow_decline_counts_from_where_half_is_lost() -> None:
    curve = np.linspace(0.6, 0.1, 41).tolist()  # falls by 0.0125 a step
    # Windows of 8: the first mean is 0.55625, the mean from step k on 0.55625 - 0.0125 k, half of it lost from k = 23
    # on; there the value at step 26 is the first below 0.278125.
    assert collapse_step(curve) == 26


def test_a_curve_that_starts_just_above_the_minimum_can_collapse() -> None:
    assert collapse_step([0.12] * 5 + [0.0] * 10) == 5


def test_minimum_window_and_fall_are_what_they_say() -> None:
    curve = [0.5] * 10 + [0.3] * 10
    assert collapse_step(curve) is None
    assert collapse_step(curve, fall=0.3) == 10
    assert collapse_step(curve, fall=0.3, minimum=0.51) is None
    assert collapse_step(curve, fall=0.3, window=11) is None


@pytest.mark.parametrize("wrong", [{"window": 0}, {"fall": 0.0}, {"fall": 1.0}, {"minimum": 0.0}])
def test_a_definition_that_says_nothing_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected 1 at least, a share in"):
        collapse_step([0.5] * 20, **wrong)


curves = st.lists(st.floats(0, 1, allow_subnormal=False), max_size=60)


@given(curves)
def test_a_curve_that_never_decreases_never_collapses(curve: list[float]) -> None:
    assert collapse_step(sorted(curve)) is None


@given(curves, st.integers(1, 6))
def test_scaling_a_curve_above_the_minimum_does_not_move_its_collapse(curve: list[float], power: int) -> None:
    above = [0.25, 0.25, 0.25, *curve]  # windows of three values at least are above the minimum, scaled down or not
    scale = 2.0**power  # exact in floating point
    assert collapse_step([value * scale for value in above], window=3) == collapse_step(above, window=3)


@given(curves)
def test_what_is_reported_is_a_value_below_half_with_a_window_after_it(curve: list[float]) -> None:
    step = collapse_step(curve, window=3)
    if step is not None:
        assert step <= len(curve) - 3
        assert curve[step] < 0.5 * max(np.convolve(curve, np.ones(3) / 3, "valid")[: step + 1])
        assert np.mean(curve[-3:]) < 0.5 * max(curve)
