"""One summed step of a frozen policy: directions that can be told beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calibadv.lab.drift import (
    Fresh,
    constant,
    dot,
    drift,
    frozen_credits,
    measured,
    minibatch_gradients,
    moved,
    norm,
    slopes,
    times,
)
from calibadv.lab.laboratory import Laboratory
from calibadv.lab.language import language
from calibadv.lab.settings import LabRun
from calibadv.types import Group

TAIL = language().first_tail


@pytest.fixture(scope="module")
def lab() -> Laboratory:
    return Laboratory(LabRun(evaluation_questions=1, samples=2))


@pytest.fixture(scope="module")
def groups(lab: Laboratory) -> list[Group]:
    return lab.sample(16, "test of drift")


def test_positive_credit_makes_its_own_tokens_likelier_and_negative_less_likely(
    lab: Laboratory, groups: list[Group]
) -> None:
    credits = {"up": constant(1.0), "down": constant(-1.0)}
    table = drift(lab.policy, groups, groups, credits, lr=1e-5, tail=TAIL).set_index(["credit", "optimizer"])
    for optimizer in ("adam", "sgd"):
        assert table.loc[("up", optimizer), "logprob_right"] > 0 > table.loc[("down", optimizer), "logprob_right"]
    assert table.loc[("up", "adam"), "N/P"] == 0
    assert table.loc[("down", "adam"), "N/P"] == float("inf")


def test_opposite_credits_have_opposite_gradients(lab: Laboratory, groups: list[Group]) -> None:
    up, down = (minibatch_gradients(lab.policy, groups, constant(sign)) for sign in (1.0, -1.0))
    for first, second in zip(up, down, strict=True):
        assert all(torch.allclose(a, -b, atol=1e-7) for a, b in zip(first, second, strict=True))


def test_a_step_of_nothing_changes_nothing_and_the_policy_itself_never_moves(
    lab: Laboratory, groups: list[Group]
) -> None:
    before = measured(lab.policy, groups, TAIL)
    still = [torch.zeros_like(p) for p in lab.policy.parameters()]
    assert norm(still) == 0
    assert measured(moved(lab.policy, still), groups, TAIL) == before
    moved(lab.policy, [torch.ones_like(p) for p in lab.policy.parameters()])
    assert measured(lab.policy, groups, TAIL) == before


def test_slopes_are_what_a_small_step_either_way_shows(lab: Laboratory, groups: list[Group]) -> None:
    gradient = minibatch_gradients(lab.policy, groups, constant(1.0))[0]
    slope = slopes(lab.policy, groups, TAIL)

    def at(length: float) -> np.ndarray:
        step = times(gradient, [torch.tensor(length / norm(gradient))] * len(gradient))
        return np.array(measured(moved(lab.policy, step), groups, TAIL))

    told = [-0.02 * dot(slope_of, gradient) / norm(gradient) for slope_of in slope]
    assert (at(0.02) - at(-0.02)) / 2 == pytest.approx(told, rel=0.03)


def test_half_the_step_is_half_the_change(lab: Laboratory, groups: list[Group]) -> None:
    whole, half = (drift(lab.policy, groups, groups, {"up": constant(1.0)}, lr=lr, tail=TAIL) for lr in (1e-5, 5e-6))
    for name in Fresh._fields:
        assert half[name].tolist() == pytest.approx((whole[name] / 2).tolist())


def test_every_credit_that_is_compared_credits_the_same_rollouts() -> None:
    assert all(method.prefill == "" and method.critic is None for method in frozen_credits().values())
