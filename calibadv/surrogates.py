"""What an update climbs at each sampled token: PPO's clipped ratio, and the surrogates that came after it.

A surrogate is a pure function of a micro-batch's tokens that returns an objective a token; what makes a loss of it
(weights, masks, the divisor) is the learner's, the same for all. N action tokens, S segments (rollouts or turns).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from calibadv.losses import LOG_RATIO_LIMIT

MAX_TURNS = 1 << 20  # more than a trajectory has: row and turn make one number


@dataclass(frozen=True, slots=True)
class PolicyTokens:
    """The action tokens [N] of a micro-batch, which holds whole trajectories."""

    logprobs_N: Tensor  # of the policy that is trained, nats; the only one with a gradient
    old_logprobs_N: Tensor
    advantages_N: Tensor
    row_N: Tensor  # index of the token's trajectory in the micro-batch
    turn_N: Tensor  # index of the token's turn in its trajectory

    def log_ratio(self) -> Tensor:
        """[N] log π - log π_old, clamped to ±20."""
        return (self.logprobs_N - self.old_logprobs_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


@dataclass(frozen=True, slots=True)
class Surrogate:
    """What is climbed at each token [N], and which tokens [N] a clip acted on (None: there is no clip)."""

    objective_N: Tensor
    clipped_N: Tensor | None = None


Segment = Literal["rollout", "turn"]
SurrogateFn = Callable[[PolicyTokens], Surrogate]


def ppo(tokens: PolicyTokens, *, low: float = 0.2, high: float = 0.2, dual: float | None = None) -> Surrogate:
    """min(r·A, clip(r, 1 - low, 1 + high)·A), r = π / π_old (PPO; CalibAdv sec. 2; high > low: DAPO, 2503.14476).

    `dual` (Ye et al. 2020, 1912.09729): where A < 0 no less than dual·A. Zero advantages give exactly zero objective
    and gradient.
    """
    return _clipped(tokens.log_ratio().exp(), tokens.advantages_N, low, high, dual)


def gspo(
    tokens: PolicyTokens,
    *,
    low: float = 3e-4,
    high: float = 4e-4,
    dual: float | None = None,
    segment: Segment = "rollout",
) -> Surrogate:
    """PPO's with one ratio a segment, s = exp(mean of log r over its tokens) (GSPO, 2507.18071).

    As its token form has it, sg(s)·π / sg(π): tokens of one segment may have several advantages, each with the gradient
    s·A·∇log π, and of one advantage this is GSPO itself. `segment` "turn" has a ratio a turn, which suits credit by
    turns (ours).
    """
    log_ratio_N = tokens.log_ratio().detach()
    segment_N = tokens.row_N if segment == "rollout" else tokens.row_N * MAX_TURNS + tokens.turn_N
    _, which_N, length_S = torch.unique(segment_N, return_inverse=True, return_counts=True)
    sum_S = log_ratio_N.new_zeros(len(length_S)).index_add_(0, which_N, log_ratio_N)
    ratio_N = (sum_S / length_S)[which_N].exp() * (tokens.logprobs_N - tokens.logprobs_N.detach()).exp()
    return _clipped(ratio_N, tokens.advantages_N, low, high, dual)


def cispo(tokens: PolicyTokens, *, low: float = 1.0, high: float = 0.2) -> Surrogate:
    """sg(clip(r, 1 - low, 1 + high))·A·log π: the weight is clipped, no token loses its gradient (CISPO, 2506.13585).

    `low` of 1 or more is no bound below.
    """
    ratio_N = tokens.log_ratio().detach().exp()
    weight_N = ratio_N.clamp(1 - low, 1 + high)
    return Surrogate(weight_N * tokens.advantages_N * tokens.logprobs_N, weight_N != ratio_N)


def sapo(tokens: PolicyTokens, *, positive: float = 1.0, negative: float = 1.05) -> Surrogate:
    """4/τ·σ(τ(r - 1))·A: the gradient fades with the distance from r = 1, where it is PPO's (SAPO, 2511.20347).

    τ is `positive` where A > 0 and else `negative`. Nothing is clipped.
    """
    ratio_N, advantages_N = tokens.log_ratio().exp(), tokens.advantages_N
    tau_N = torch.where(advantages_N > 0, positive, negative)
    return Surrogate(4 / tau_N * torch.sigmoid(tau_N * (ratio_N - 1)) * advantages_N)


def _clipped(ratio_N: Tensor, advantages_N: Tensor, low: float, high: float, dual: float | None) -> Surrogate:
    free_N = ratio_N * advantages_N
    bounded_N = ratio_N.clamp(1 - low, 1 + high) * advantages_N
    objective_N, clipped_N = torch.minimum(free_N, bounded_N), bounded_N < free_N
    if dual is not None:
        floor_N = dual * advantages_N
        below_N = (advantages_N < 0) & (objective_N < floor_N)
        objective_N, clipped_N = torch.where(below_N, floor_N, objective_N), clipped_N | below_N
    return Surrogate(objective_N, clipped_N)
