"""LLD: GRPO plus a penalty on tokens of responses that were not wrong and yet become less likely.

Δ = log π_old - log π_θ;   λ · (1 / Σ_{Y_pre} tokens) · Σ_gates 1[Σ_k Δ_k > 0] · Σ_k max(0, Δ_k)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from calibadv.advantages.steps import step_slices
from calibadv.methods.grpo import grpo
from calibadv.methods.method import ExtraLoss, LossTokens, Method, StepFacts
from calibadv.types import Credit, Group, TurnKind

if TYPE_CHECKING:
    from torch import Tensor

MAX_TURNS = 1 << 20  # more than a trajectory has: row and turn make one number
ENOUGH_SEARCHES = 2.0  # mean valid searches from which LLDS-MA weighs answers fully


def lld(
    *,
    coef: float = 0.2,
    gate: Literal["token", "response", "turn"] = "turn",
    mask_answer: bool = False,
    divisor: Literal["preserved", "all"] = "preserved",
) -> Method:
    """Lazy likelihood displacement regularisation (LLD, LLDS and LLDS-MA).

    Preserved responses (Y_pre) are those of advantage >= 0, hence those of all-wrong groups too. `gate` is what must
    have become less likely as a whole before its tokens count: each "token" (LLD), the "response" (LLDS), or the "turn"
    (the official code's default). `mask_answer` (LLDS-MA) weighs answer tokens by min(V_s / 2, 1), V_s the step's mean
    of valid searches. `divisor` "all" counts all action tokens, as the official code does, but of the whole mini-batch.
    `coef` is the paper's 0.2 (0.3 for Qwen2.5-7B-Instruct); its term is exactly 0 at π_θ = π_old. ValueError for a
    negative `coef`.
    """
    if coef < 0:
        raise ValueError(f"coef is {coef}, expected 0 or more (the paper: 0.2)")

    def weights(group: Group, credit: Credit, facts: StepFacts) -> Credit:
        answer = min(facts.mean_searches / ENOUGH_SEARCHES, 1.0) if mask_answer else 1.0
        rows = preserved(credit)
        for row_N, trajectory in zip(rows, group.trajectories, strict=True):
            for tokens, turn in zip(step_slices(trajectory), trajectory.turns, strict=True):
                row_N[tokens] *= answer if turn.kind is TurnKind.ANSWER else 1.0
        return rows

    def counts(_: Group, credit: Credit) -> Credit:
        return [np.ones_like(row_N) for row_N in credit] if divisor == "all" else preserved(credit)

    def loss(tokens: LossTokens) -> Tensor:
        from calibadv.losses import likelihood_drop  # torch: only where a loss is computed

        segment_N = {"turn": tokens.row_N * MAX_TURNS + tokens.turn_N, "response": tokens.row_N, "token": None}[gate]
        return likelihood_drop(tokens.logprobs_N, tokens.old_logprobs_N, tokens.weights_N, segment_N)

    return replace(grpo(), name="lld", extra_loss=ExtraLoss(coef, weights, counts, loss))


def preserved(credit: Credit) -> Credit:
    """1 on all tokens of responses whose advantage is nowhere negative (Y_pre), else 0. One row [N] a trajectory."""
    return [np.full_like(row_N, float(np.all(row_N >= 0))) for row_N in credit]
