"""First exposure by hand: what moves within a rollout, what stays."""

from __future__ import annotations

import numpy as np
import pytest

from calibadv.advantages.group import outcome_credit
from calibadv.methods import make_method
from calibadv.types import Group
from tests.build import group, trajectory


def told() -> Group:
    """Two rollouts, A_O = ±0.71. Evidence: a, b, c (the right one's). The wrong one finds a in its second search."""
    right = trajectory(1.0, [1, 1, 1, 2], [["a", "b"], ["b"], ["c"]])
    wrong = trajectory(0.0, [1, 2, 1], [["x"], ["a", "x"]])
    return group(right, wrong)


def test_praise_moves_to_the_searches_that_showed_evidence_first() -> None:
    right, _ = make_method("first_exposure", {"beta": 0.6}).advantages(told())
    # Shares 2/3, 0 (b again), 1/3; f = 0.4 + 0.6 * 3 * share; the answer's two tokens stay.
    assert right / 2**-0.5 == pytest.approx([1.6, 0.4, 1.0, 1, 1], rel=1e-4)


def test_blame_moves_away_from_them() -> None:
    _, wrong = make_method("first_exposure", {"beta": 0.6}).advantages(told())
    # Shares 0 and 1: of the blame 1 and 0; f = 0.4 + 0.6 * 2 * share.
    assert wrong / -(2**-0.5) == pytest.approx([1.6, 0.4, 0.4, 1], rel=1e-4)


def test_the_evidence_is_that_of_rollouts_from_the_threshold_on() -> None:
    half = group(trajectory(0.5, [1, 1, 1], [["a"], ["b"]]), trajectory(0.0, [1, 1], [["x"]]))
    strict, lenient = (make_method("first_exposure", {"correct_threshold": at}) for at in (0.6, 0.5))
    assert strict.advantages(half)[0].tolist() == outcome_credit(half)[0].tolist()
    lenient_half = group(trajectory(0.5, [1, 1, 1], [["a", "b"], ["a"]]), trajectory(0.0, [1, 1], [["x"]]))
    assert lenient.advantages(lenient_half)[0] / 2**-0.5 == pytest.approx([1.5, 0.5, 1], rel=1e-4)


def test_no_sign_changes_and_the_mean_over_searches_stays() -> None:
    for beta in (0.0, 0.5, 1.0):
        rows = make_method("first_exposure", {"beta": beta}).advantages(told())
        assert rows[0][:3].mean() == pytest.approx(2**-0.5, rel=1e-4)
        assert np.mean([rows[1][0], rows[1][1]]) == pytest.approx(-(2**-0.5), rel=1e-4)
        assert (rows[0] >= 0).all()
        assert (rows[1] <= 0).all()


def test_without_evidence_or_with_one_search_it_is_grpo() -> None:
    none_right = group(trajectory(0.5, [1, 1, 1], [["a"], ["b"]]), trajectory(0.0, [1, 1], [["a"]]))
    one_search = group(trajectory(1.0, [1, 1], [["a"]]), trajectory(0.0, [1, 1], [["a"]]))
    for made in (none_right, one_search):
        for row, expected in zip(make_method("first_exposure", {}).advantages(made), outcome_credit(made), strict=True):
            assert np.array_equal(row, expected)


def test_a_share_outside_of_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"beta is 1\.5, expected a share in"):
        make_method("first_exposure", {"beta": 1.5})
