"""A step of a frozen policy: directions that can be told beforehand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from calibadv.lab.drift import (
    Fresh,
    constant,
    dot,
    drift,
    figures,
    frozen_credits,
    minibatch_gradients,
    norm,
    signal_share,
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


def test_slopes_are_what_a_small_step_either_way_shows(lab: Laboratory, groups: list[Group]) -> None:
    gradient = minibatch_gradients(lab.policy, groups, constant(1.0))[0]
    slope = slopes(lab.policy, groups, TAIL)

    def at(length: float) -> np.ndarray:
        step = times(gradient, [torch.tensor(length / norm(gradient))] * len(gradient))
        moved = copy.deepcopy(lab.policy)
        with torch.no_grad():
            for parameter, change in zip(moved.parameters(), step, strict=True):
                parameter.sub_(change)
            return np.array([tuple(map(float, parts)) for parts in figures(moved, groups, TAIL)]).sum(axis=0)

    told = [-0.02 * dot(slope_of, gradient) / norm(gradient) for slope_of in slope]
    assert (at(0.02) - at(-0.02)) / 2 == pytest.approx(told, rel=0.03)


def test_the_share_of_signal_is_what_mini_batches_have_in_common() -> None:
    one = [torch.tensor([1.0])]
    # 2 in common, 1 of each one's own: products 4, squares 5. An optimizer that sees the first alone sees no noise.
    steps = [[torch.cat([torch.tensor([2.0]), own])] for own in torch.eye(3)]
    assert signal_share(steps, one) == pytest.approx((4 / 5, 0))
    assert signal_share(steps, [torch.tensor([1.0, 0.0, 0.0, 0.0])]) == pytest.approx((1, 0))
    # Products 1, 1 and 1 of 1, 1, -1 in pairs: 1 - 1 - 1 over three squares. Without one of them it is 1, -1 or -1.
    three = [[torch.tensor([sign])] for sign in (1.0, 1.0, -1.0)]
    assert signal_share(three, one) == pytest.approx((-1 / 3, (2 * 8 / 9) ** 0.5))
    assert signal_share([[torch.zeros(2)]] * 3, one) == (0.0, 0.0)
    # Products 0 of three: the share is 0 without any one of them too.
    assert signal_share([[row] for row in torch.eye(3)], one) == (0.0, 0.0)
    noise = torch.Generator().manual_seed(0)
    many = [[torch.randn(400, generator=noise) + 0.1] for _ in range(200)]
    share, error = signal_share(many, one)
    assert share == pytest.approx(0.01 / 1.01, abs=3 * error)
    assert 0 < error < 0.005


def test_half_the_step_is_half_the_change(lab: Laboratory, groups: list[Group]) -> None:
    whole, half = (drift(lab.policy, groups, groups, {"up": constant(1.0)}, lr=lr, tail=TAIL) for lr in (1e-5, 5e-6))
    for name in Fresh._fields:
        assert half[name].tolist() == pytest.approx((whole[name] / 2).tolist())


def test_every_credit_that_is_compared_credits_the_same_rollouts() -> None:
    assert all(method.prefill == "" and method.critic is None for method in frozen_credits().values())
