"""W-REINFORCE by hand."""

from __future__ import annotations

import pytest

from calibadv.methods import make_method
from tests.build import group, trajectory


def test_right_rollouts_get_lambda_and_wrong_ones_minus_one() -> None:
    told = group(
        trajectory(0.7, [2, 1]), trajectory(1.0, [1], format_reward=0.0), trajectory(0.6, [1, 2]), trajectory(0.0, [1])
    )
    rows = make_method("w_reinforce", {}).advantages(told)
    assert [row.tolist() for row in rows] == [
        pytest.approx([0.1] * 3), [-1.0], [-1.0] * 3, [-1.0],
    ]  # fmt: skip


def test_a_group_that_is_wrong_as_a_whole_trains() -> None:
    rows = make_method("w_reinforce", {"lam": 0.3}).advantages(group(trajectory(0.0, [1]), trajectory(0.0, [2])))
    assert [row.tolist() for row in rows] == [[-1.0], [-1.0, -1.0]]
    rows = make_method("w_reinforce", {"lam": 0.3}).advantages(group(trajectory(1.0, [1]), trajectory(1.0, [1])))
    assert [row.tolist() for row in rows] == [pytest.approx([0.3]), pytest.approx([0.3])]


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lam is -1\.0, expected a weight of 0 or more"):
        make_method("w_reinforce", {"lam": -1})
