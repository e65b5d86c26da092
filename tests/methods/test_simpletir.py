"""SimpleTIR: void trajectories count in the group and do not train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibadv.methods.simpletir import simpletir
from calibadv.types import Credit, Group, TurnKind
from tests.build import group, trajectory, turn
from tests.methods.checks import assert_grpo

VOID = turn(3, kind=TurnKind.VOID)
GROUP = group(
    trajectory(1.0, [2, 1]),
    replace(trajectory(0.0, [1]), turns=(turn(2), VOID)),
    replace(trajectory(0.5, [1]), turns=(turn(1), turn(2))),  # the forced last turn is a search
)


def weights(g: Group) -> Credit:
    weigh = simpletir().weights
    assert weigh is not None
    return weigh(g)


def test_a_void_turn_takes_its_whole_trajectory_out_of_the_loss() -> None:
    first, void, forced = weights(GROUP)
    assert first.tolist() == [1, 1, 1]
    assert void.tolist() == [0] * 5
    assert forced.tolist() == [1, 1, 1]  # a search that was not run is not void


def test_a_void_turn_that_was_tried_again_counts_too() -> None:
    retried = replace(trajectory(1.0, [1]), turns=(VOID, turn(1), turn(1, kind=TurnKind.ANSWER)))
    assert weights(group(retried))[0].tolist() == [0] * 5


def test_void_trajectories_stay_in_the_mean_and_the_std() -> None:
    first, void, forced = simpletir().advantages(GROUP)
    np.testing.assert_allclose([first[0], void[0], forced[0]], [1, -1, 0], atol=1e-5)
    assert_grpo(simpletir().advantages(GROUP), GROUP)


def test_a_group_of_void_trajectories_has_no_weight() -> None:
    void = replace(trajectory(0.0, [1]), turns=(VOID,))
    assert sum(row.sum() for row in weights(group(void, void))) == 0


def test_the_calibadv_papers_baseline_drops_void_rollouts_before_mean_and_deviation() -> None:
    # Among rewards 1 and 0.5 the mean is 0.75 and the unbiased deviation 0.25 * sqrt(2): ±0.707107.
    method = simpletir("calibadv_paper")
    first, void, forced = method.advantages(GROUP)
    np.testing.assert_allclose(first, [np.sqrt(0.5)] * 3, atol=5e-6)
    assert void.tolist() == [0] * 5
    np.testing.assert_allclose(forced, [-np.sqrt(0.5)] * 3, atol=5e-6)
    assert method.weights is not None
    assert [row.tolist() for row in method.weights(GROUP)] == [row.tolist() for row in weights(GROUP)]


def test_the_only_sound_rollout_is_a_group_of_one() -> None:
    void = replace(trajectory(0.0, [1]), turns=(VOID,))
    alone, *others = simpletir("calibadv_paper").advantages(group(trajectory(0.5, [2, 1]), void, void))
    np.testing.assert_allclose(alone, [0.5] * 3, atol=1e-6)
    assert not any(row.any() for row in others)
    assert not any(row.any() for row in simpletir("calibadv_paper").advantages(group(void, void)))


def test_without_void_turns_both_variants_are_grpo() -> None:
    sound = group(trajectory(1.0, [2, 1]), trajectory(0.5, [1, 1]), trajectory(0.0, [1]))
    for variant in ("official", "calibadv_paper"):
        assert_grpo(simpletir(variant).advantages(sound), sound)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="variant is 'paper'"):
        simpletir("paper")  # type: ignore[arg-type]
