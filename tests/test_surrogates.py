"""Surrogates and their gradients, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from calibadv.surrogates import PolicyTokens, Surrogate, SurrogateFn, cispo, gspo, ppo, sapo


def tokens(
    ratios: Sequence[float], advantages: Sequence[float], rows: Sequence[int] = (), turns: Sequence[int] = ()
) -> PolicyTokens:
    """Tokens of these ratios whose old log-prob is -1; by default of one rollout's one turn."""
    nothing = [0] * len(ratios)
    return PolicyTokens(
        (torch.tensor(ratios).log() - 1).requires_grad_(),
        torch.full((len(ratios),), -1.0),
        torch.tensor(advantages),
        torch.tensor(rows or nothing),
        torch.tensor(turns or nothing),
    )


def climbed(surrogate: SurrogateFn, given: PolicyTokens, **numbers: Any) -> tuple[list[float], list[float], Surrogate]:
    """The objective of each token and its gradient by that token's log-prob."""
    out = surrogate(given, **numbers)
    torch.autograd.backward(out.objective_N.sum())
    gradient = given.logprobs_N.grad
    assert gradient is not None
    return out.objective_N.tolist(), gradient.tolist(), out


def flags(clipped: Tensor | None) -> list[bool]:
    assert clipped is not None
    return clipped.tolist()


RATIOS, ADVANTAGES = [1.5, 1.5, 0.5, 0.5, 1.0], [1.0, -1.0, 1.0, -1.0, 2.0]


def test_ppo_by_hand() -> None:
    objective, gradient, out = climbed(ppo, tokens(RATIOS, ADVANTAGES))
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8), 2; where it is not clipped the gradient is r A.
    assert objective == pytest.approx([1.2, -1.5, 0.5, -0.8, 2.0])
    assert gradient == pytest.approx([0, -1.5, 0.5, 0, 2.0])
    assert flags(out.clipped_N) == [True, False, False, True, False]


def test_the_bound_above_may_be_another() -> None:
    objective, gradient, out = climbed(ppo, tokens([1.25, 1.5, 0.5], [1.0, 1.0, -1.0]), high=0.28)
    assert objective == pytest.approx([1.25, 1.28, -0.8])
    assert gradient == pytest.approx([1.25, 0, 0])
    assert flags(out.clipped_N) == [False, True, True]


def test_dual_clip_bounds_what_a_bad_token_can_cost() -> None:
    objective, gradient, out = climbed(ppo, tokens([5.0, 2.5, 5.0], [-2.0, -2.0, 2.0]), dual=3.0)
    assert objective == pytest.approx([-6.0, -5.0, 2.4])  # 3 times -2; -5 is above it; a good token keeps PPO's clip
    assert gradient == pytest.approx([0, -5.0, 0])
    assert flags(out.clipped_N) == [True, False, True]


def test_gspo_has_one_ratio_a_rollout() -> None:
    # Rollout 0: sqrt(1.5 * 0.6) = 0.949; rollout 1: sqrt(1.44 * 1) = 1.2.
    given = tokens([1.5, 1.44, 0.6, 1.0], [1.0, 1.0, 1.0, -1.0], rows=[0, 1, 0, 1])
    objective, gradient, out = climbed(gspo, given, low=0.1, high=0.1)
    first = math.sqrt(0.9)
    assert objective == pytest.approx([first, 1.1, first, -1.2])
    assert gradient == pytest.approx([first, 0, first, -1.2])  # s A of the token's own advantage
    assert flags(out.clipped_N) == [False, True, False, False]


def test_gspo_of_one_advantage_is_the_sequence_form() -> None:
    given = tokens([1.5, 0.6, 1.1], [2.0, 2.0, 2.0])
    _, gradient, _ = climbed(gspo, given, low=0.5, high=0.5)
    logprobs = given.logprobs_N.detach().requires_grad_()
    sequence = (logprobs - given.old_logprobs_N).mean().exp() * 2.0  # once a sequence; its tokens' mean is the same
    torch.autograd.backward(sequence)
    assert logprobs.grad is not None
    assert [value / 3 for value in gradient] == pytest.approx(logprobs.grad.tolist())


def test_gspo_may_have_one_ratio_a_turn() -> None:
    given = tokens([1.5, 0.6, 1.3, 1.3], [1.0] * 4, rows=[0, 0, 0, 1], turns=[0, 0, 1, 1])
    objective, _, out = climbed(gspo, given, low=0.2, high=0.2, segment="turn")
    assert objective == pytest.approx([math.sqrt(0.9)] * 2 + [1.2] * 2)
    assert flags(out.clipped_N) == [False, False, True, True]


def test_gspo_at_the_old_policy_is_ppo() -> None:
    given = tokens([1.0, 1.0], [1.0, -2.0])
    assert climbed(gspo, given)[1] == climbed(ppo, tokens([1.0, 1.0], [1.0, -2.0]))[1] == [1.0, -2.0]


def test_cispo_clips_the_weight_and_every_token_learns() -> None:
    objective, gradient, out = climbed(cispo, tokens(RATIOS, ADVANTAGES), low=0.2, high=0.2)
    weights = [1.2, 1.2, 0.8, 0.8, 1.0]
    assert gradient == pytest.approx([w * a for w, a in zip(weights, ADVANTAGES, strict=True)])
    logprobs = [math.log(r) - 1 for r in RATIOS]
    assert objective == pytest.approx([g * logp for g, logp in zip(gradient, logprobs, strict=True)])
    assert flags(out.clipped_N) == [True, True, True, True, False]
    assert climbed(cispo, tokens([0.01], [1.0]))[1] == pytest.approx([0.01])  # no bound below


def test_sapo_fades_and_is_ppo_at_the_old_policy() -> None:
    objective, gradient, out = climbed(sapo, tokens([1.0, 1.0, 2.0, 2.0], [1.0, -1.0, 1.0, -1.0]))

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    assert objective == pytest.approx([4 * 0.5, -4 / 1.05 * 0.5, 4 * sigma(1), -4 / 1.05 * sigma(1.05)])
    faded = [4 * sigma(t) * (1 - sigma(t)) * 2 for t in (1, 1.05)]  # 4/τ · τσ(1 - σ) · r
    assert gradient == pytest.approx([1, -1, faded[0], -faded[1]])
    assert out.clipped_N is None


@pytest.mark.parametrize("surrogate", [ppo, gspo, cispo, sapo])
def test_zero_advantages_give_exactly_zero_and_no_gradient(surrogate: SurrogateFn) -> None:
    far = PolicyTokens(
        torch.tensor([3.0, -40.0], requires_grad=True),
        torch.tensor([-30.0, 0.0]),
        torch.zeros(2),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64),
    )
    objective, gradient, _ = climbed(surrogate, far)
    assert objective == [0, 0]
    assert gradient == [0, 0]


@pytest.mark.parametrize("surrogate", [ppo, gspo, cispo, sapo])
def test_extreme_ratios_stay_finite(surrogate: SurrogateFn) -> None:
    far = PolicyTokens(
        torch.tensor([500.0], requires_grad=True), torch.zeros(1), -torch.ones(1), *torch.zeros(2, 1, dtype=torch.int64)
    )
    objective, gradient, _ = climbed(surrogate, far)
    assert math.isfinite(objective[0])
    assert math.isfinite(gradient[0])


@pytest.mark.parametrize("surrogate", [ppo, gspo, cispo, sapo])
def test_no_tokens_are_no_objective(surrogate: SurrogateFn) -> None:
    empty, index = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert surrogate(PolicyTokens(empty, empty, empty, index, index)).objective_N.shape == (0,)
