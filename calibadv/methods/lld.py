"""LLD: GRPO plus a penalty on tokens of responses that were not wrong and yet become less likely.

Δ = log π_old - log π_θ;   λ · (1 / Σ_{Y_pre} tokens) · Σ_gates 1[Σ_k Δ_k > 0] · Σ_k max(0, Δ_k)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from calibadv.advantages.group import Baseline
from calibadv.advantages.steps import step_slices
from calibadv.methods.grpo import grpo
from calibadv.methods.method import ExtraLoss, LossTokens, Method, StepFacts
from calibadv.types import Credit, Group, Trajectory, TurnKind

if TYPE_CHECKING:
    from torch import Tensor

Gate = Literal["token", "response", "turn"]


@dataclass(frozen=True, slots=True)
class Variant:
    """What a name of `lld`'s variants stands for."""

    coef: float
    gate: Gate
    preserves_zero: bool  # responses of A = 0 are preserved too, hence all-wrong groups


VARIANTS = {"official": Variant(0.2, "turn", True), "calibadv_paper": Variant(0.1, "token", False)}


def lld(
    variant: Literal["official", "calibadv_paper"] = "official",
    *,
    coef: float | None = None,
    gate: Gate | None = None,
    mask_answer: bool = False,
    divisor: Literal["preserved", "all"] = "preserved",
    baseline: Baseline = "grpo",
) -> Method:
    """Lazy likelihood displacement regularisation (LLD, LLDS and LLDS-MA; Deng et al. 2025).

    `variant` sets what is left at None: "official" has coefficient 0.2 (0.3 for Qwen2.5-7B-Instruct), the gate at the
    turn and Y_pre = responses of A >= 0; "calibadv_paper" is the baseline of the CalibAdv paper (Table 1, appendix A):
    0.1, the gate at each token, A > 0 alone. `gate` is what must have become less likely as a whole before its tokens
    count: each "token" (LLD), the "response" (LLDS), or the "turn" (the official code). `mask_answer` (LLDS-MA) weighs
    the tokens of `<answer>…</answer>` by min(max(V - 1, 0), 1), V the step's mean of valid searches. `divisor` "all"
    counts all action tokens, as the official code does, but of the whole mini-batch. `baseline` as for `grpo`. The term
    is exactly 0 at π_θ = π_old. ValueError for an unknown variant or a negative `coef`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}, expected one of {sorted(VARIANTS)}")
    chosen = VARIANTS[variant]
    weight = chosen.coef if coef is None else coef
    level = chosen.gate if gate is None else gate
    if weight < 0:
        raise ValueError(f"coef is {coef}, expected 0 or more (official: 0.2)")

    def weights(group: Group, credit: Credit, facts: StepFacts) -> Credit:
        rows = preserved(credit, with_zero=chosen.preserves_zero)
        if mask_answer:
            factor = min(max(facts.mean_searches - 1.0, 0.0), 1.0)
            for row_N, trajectory in zip(rows, group.trajectories, strict=True):
                for tokens in answer_slices(trajectory):
                    row_N[tokens] *= factor
        return rows

    def counts(_: Group, credit: Credit) -> Credit:
        if divisor == "all":
            return [np.ones_like(row_N) for row_N in credit]
        return preserved(credit, with_zero=chosen.preserves_zero)

    def loss(tokens: LossTokens) -> Tensor:
        from calibadv.losses import likelihood_drop  # torch: only where a loss is computed
        from calibadv.surrogates import MAX_TURNS

        segment_N = {"turn": tokens.row_N * MAX_TURNS + tokens.turn_N, "response": tokens.row_N, "token": None}[level]
        return likelihood_drop(tokens.logprobs_N, tokens.old_logprobs_N, tokens.weights_N, segment_N)

    return replace(grpo(baseline=baseline), name="lld", extra_loss=ExtraLoss(weight, weights, counts, loss))


def preserved(credit: Credit, *, with_zero: bool = True) -> Credit:
    """1 on all tokens of the responses in Y_pre, else 0. One row [N] a trajectory.

    Y_pre: no token's advantage is negative; without `with_zero`, each is positive.
    """
    return [np.full_like(row_N, float(np.all(row_N >= 0 if with_zero else row_N > 0))) for row_N in credit]


def answer_slices(trajectory: Trajectory) -> list[slice]:
    """Where the answer of each answer turn stands among the action tokens [N], tags included.

    The whole turn where its span is not known.
    """
    slices = []
    for tokens, turn in zip(step_slices(trajectory), trajectory.turns, strict=True):
        if turn.kind is TurnKind.ANSWER:
            first, end = turn.answer_span or (0, len(turn.action_ids))
            slices.append(slice(tokens.start + first, tokens.start + end))
    return slices
