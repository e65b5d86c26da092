"""Controls, by hand, on rewards 1 and 0 with 2 and 4 action tokens: GRPO gives ±1/√2, so that N / P = 2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibadv.lab.controls import CONTROLS, lab_method, masses
from calibadv.types import Group
from tests.build import group, trajectory

UNIT = 2**-0.5
PAIR = group(trajectory(1.0, (1, 1)), trajectory(0.0, (3, 1)))


def credit(name: str, of: Group = PAIR, **params: object) -> list[list[float]]:
    return [[round(float(a) / UNIT, 3) for a in row_N] for row_N in lab_method(name, params).advantages(of)]


def test_negatives_are_multiplied() -> None:
    assert credit("scaled", negative=2.0) == [[1, 1], [-2, -2, -2, -2]]
    assert credit("scaled") == credit("grpo") == [[1, 1], [-1, -1, -1, -1]]


def test_one_sign_alone() -> None:
    assert credit("positives_only") == [[1, 1], [0, 0, 0, 0]]
    assert credit("negatives_only") == [[0, 0], [-1, -1, -1, -1]]


def test_balanced_masses_by_either_side() -> None:
    assert credit("balanced") == [[2, 2], [-1, -1, -1, -1]]
    assert credit("balanced", by="negatives") == [[1, 1], [-0.5, -0.5, -0.5, -0.5]]
    assert credit("balanced", ratio=4.0) == [[0.5, 0.5], [-1, -1, -1, -1]]


def test_calibration_of_a_scaled_credit_is_by_hand() -> None:
    # The right rollout found "a"; the wrong one's first search did too (c = 1), its second found "b" (c = 0).
    of = group(trajectory(1.0, (1, 1), [["a"]]), trajectory(0.0, (2, 2, 1), [["a"], ["b"]]))
    assert credit("calibrated", of, negative=2.0, adv_reb=False) == [[1, 1], [0, 0, -2, -2, -2]]
    assert credit("calibrated", of, negative=2.0, soft_pen="uniform", adv_reb=False)[1] == [-1, -1, -1, -1, -2]
    # At the answers P = 1 and N = 2: the positive one is doubled.
    assert credit("calibrated", of, negative=2.0) == [[1, 2], [0, 0, -2, -2, -2]]


def test_calibration_of_grpo_itself_is_the_method_s() -> None:
    of = group(trajectory(1.0, (1, 1), [["a"]]), trajectory(0.0, (2, 2, 1), [["a"], ["b"]]))
    assert credit("calibrated", of) == credit("calibadv", of, pre_think=False)


def test_a_group_without_credit_is_left_as_it_is() -> None:
    equal = group(trajectory(1.0, (1, 1)), trajectory(1.0, (2, 1)))
    assert credit("balanced", equal) == credit("shuffled", equal) == [[0, 0], [0, 0, 0]]


def test_a_group_of_one_side_is_left_as_it_is() -> None:
    alone = group(trajectory(1.0, (1, 1)))
    assert credit("balanced", alone) == credit("shuffled", alone) == credit("grpo", alone)


def test_shuffled_credit_has_the_wanted_ratio_and_deals_by_question() -> None:
    many = group(*(trajectory(float(i % 2), (1 + i, 2)) for i in range(6)))
    first, again = (lab_method("shuffled", {"ratio": 1.6}).advantages(many) for _ in range(2))
    positive, negative = masses(first)
    assert negative / positive == pytest.approx(1.6, rel=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    signs = [np.sign(row_N[0]) for row_N in first]
    assert sorted(signs) == [-1, -1, -1, 1, 1, 1]
    assert np.prod(masses(lab_method("shuffled", {"ratio": 9.0}).advantages(many))) == pytest.approx(
        positive * negative, rel=1e-5
    )
    of_questions = (Group(replace(many.question, id=f"test/{n}"), many.trajectories) for n in range(9))
    dealt = {str(np.sign([row_N[0] for row_N in lab_method("shuffled", {}).advantages(of)])) for of in of_questions}
    assert len(dealt) > 2


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("balanced", {"by": "mean"}, "'positives' or 'negatives'"),
        ("balanced", {"ratio": 0.0}, "positive number"),
        ("shufled", {}, "did you mean 'shuffled'"),
        ("scaled", {"negatives": 2.0}, "did you mean 'negative'"),
    ],
)
def test_what_no_control_is_refused(name: str, params: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        lab_method(name, params)


def test_every_control_gives_a_row_a_trajectory() -> None:
    for name in CONTROLS:
        assert [len(row_N) for row_N in lab_method(name, {}).advantages(PAIR)] == [2, 4]
