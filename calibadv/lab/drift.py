"""Which way does each credit push a frozen policy? A step along its mean gradient, what that does to fresh rollouts,
and how much of a mini-batch's gradient is signal.

At first order, hence whatever the step's length; no training, hence no luck of a run. For samples of a distribution μ
the expected gradient of a constant advantage A is A E_μ[∇ log π] = -A ∇ KL(μ || π): zero where μ = π, and towards or
away from μ elsewhere, by its sign. A sampler that cuts the distribution off (top_p < 1) while the log-probs are of all
of it is such a μ.

M mini-batches, each a training mini-batch by size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from calibadv.batching import to_row
from calibadv.lab.controls import lab_method, masses
from calibadv.lab.diagnostics import RIGHT
from calibadv.lab.learner import CPU, TOKEN_BUDGET, action_hidden
from calibadv.lab.policy import Policy
from calibadv.losses import token_stats
from calibadv.methods.method import Method
from calibadv.micro_batches import micro_batches
from calibadv.rllib.objective import to_tensors
from calibadv.types import Credit, Group

ADAM_EPSILON = 1e-8
QUESTIONS = 4  # a mini-batch's, as a run's 12 a step in about four updates

Step = list[Tensor]  # a change of every parameter
T = TypeVar("T")


class Fresh(NamedTuple, Generic[T]):
    """Means over fresh rollouts of the policy that was frozen, or the same of each one's slope."""

    log_tail_mass: T  # of the log of the probability of all words that nobody uses
    entropy: T  # nats
    logprob_right: T  # of the tokens of right rollouts, nats
    logprob_wrong: T


def frozen_credits() -> dict[str, Method]:
    """Credits that differ in sign and size of their mass. None has a prefill: all credit the same rollouts."""
    calibrated = {"pre_think": False}
    return {
        "GRPO": lab_method("grpo", {}),
        "positives only": lab_method("positives_only", {}),
        "negatives only": lab_method("negatives_only", {}),
        "negatives x 2": lab_method("scaled", {"negative": 2.0}),
        "negatives x 0.5": lab_method("scaled", {"negative": 0.5}),
        "balanced": lab_method("balanced", {}),
        "CalibAdv without PreThink": lab_method("calibadv", calibrated),
        "soft penalty only": lab_method("calibadv", {**calibrated, "adv_reb": False}),
        "rebalancing only": lab_method("calibadv", {**calibrated, "soft_pen": "none"}),
        "shuffled": lab_method("shuffled", {}),
        "all tokens +1": constant(1.0),
        "all tokens -1": constant(-1.0),
    }


def constant(advantage: float) -> Method:
    """The same advantage for every token: what is left of a credit whose rollouts do not differ."""

    def advantages(group: Group) -> Credit:
        return [np.full(trajectory.num_actions, advantage, np.float32) for trajectory in group.trajectories]

    return replace(lab_method("grpo", {}), name="constant", advantages=advantages)


def drift(
    policy: Policy, train: Sequence[Group], fresh: Sequence[Group], credits: Mapping[str, Method], lr: float, tail: int
) -> pd.DataFrame:
    """A row a credit and optimizer: N / P, the gradient's norm, and the change of every figure of `Fresh`.

    "adam": the mini-batches' mean gradient over the root of their mean square, times `lr`. "sgd": the plain mean,
    scaled to the length of the first credit's Adam step, so that directions are compared. A change is first-order: the
    figure's derivative along the step. `t of tail`: over the mini-batches, its mean over its standard error, the
    optimizer's scale held fixed. `signal`: `signal_share` of a mini-batch. `tail`: id of its first word.
    """
    slope = slopes(policy, fresh, tail)
    rows, length = [], 0.0
    for name, method in credits.items():
        gradients = minibatch_gradients(policy, train, method)
        mean = [torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True)]
        adam_scale = [
            lr / (torch.stack(p).square().mean(0).sqrt() + ADAM_EPSILON) for p in zip(*gradients, strict=True)
        ]
        length = length or norm(times(mean, adam_scale))
        sgd_scale = [torch.tensor(length / max(norm(mean), ADAM_EPSILON))] * len(mean)
        positive, negative = masses([row_N for group in train for row_N in method.advantages(group)])
        ratio = negative / positive if positive else float("inf")
        for optimizer, scale in (("adam", adam_scale), ("sgd", sgd_scale)):
            change = {name: -dot(slope_of, times(mean, scale)) for name, slope_of in slope._asdict().items()}
            tail_M = np.array([-dot(slope.log_tail_mass, times(gradient, scale)) for gradient in gradients])
            t = tail_M.mean() / (tail_M.std(ddof=1) / np.sqrt(len(tail_M)))
            share, error = signal_share(gradients, scale)
            told: dict[str, object] = {
                "credit": name,
                "optimizer": optimizer,
                "N/P": ratio,
                "gradient norm": norm(mean),
            }
            rows.append(told | change | {"t of tail": float(t), "signal": share, "signal ±": error})
    return pd.DataFrame(rows)


def signal_share(gradients: Sequence[Step], scale: Step) -> tuple[float, float]:
    """The expected gradient's part of a mini-batch's squared length, |E g|² / E |g|², and its jackknife error.

    |E g|² without bias: the mean product of two different mini-batches, below 0 by chance where there is none. What is
    left is noise, which changes from mini-batch to mini-batch. n mini-batches together have n s / (1 + (n - 1) s). Of
    three or more mini-batches.
    """
    flat_MP = torch.stack([torch.cat([part.flatten() for part in times(step, scale)]) for step in gradients]).double()
    products_MM = (flat_MP @ flat_MP.T).numpy()

    def share(of: np.ndarray) -> float:
        count, squares = len(of), float(np.trace(of))
        return float(of.sum() - squares) / (count - 1) / squares if squares else 0.0

    count = len(products_MM)
    without_M = np.array([share(np.delete(np.delete(products_MM, m, 0), m, 1)) for m in range(count)])
    return share(products_MM), float(np.sqrt((count - 1) * without_M.var()))


def minibatch_gradients(policy: Policy, groups: Sequence[Group], method: Method) -> list[Step]:
    """Of each mini-batch of `QUESTIONS` groups: the gradient of - Σ A log π / tokens. A rest of groups has none."""
    gradients = []
    for start in range(0, len(groups) - QUESTIONS + 1, QUESTIONS):
        rows = [
            to_row(trajectory, advantages_N)
            for group in groups[start : start + QUESTIONS]
            for trajectory, advantages_N in zip(group.trajectories, method.advantages(group), strict=True)
        ]
        policy.zero_grad(set_to_none=True)
        tokens = sum(len(row.advantages_N) for row in rows)
        for micro in micro_batches([row for row in rows if row.advantages_N.any()], TOKEN_BUDGET):
            batch = to_tensors(micro, CPU)
            stats = token_stats(action_hidden(policy, batch), policy.embed.weight, batch["targets_N"])
            torch.autograd.backward(-(batch["advantages_N"] * stats.logprobs_N).sum() / tokens)
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.parameters()])
    policy.zero_grad(set_to_none=True)
    return gradients


def slopes(policy: Policy, groups: Sequence[Group], tail: int) -> Fresh[Step]:
    """Gradients of the figures: what a small step changes in each is the product with it."""
    parameters = list(policy.parameters())
    slope = Fresh(*([torch.zeros_like(p) for p in parameters] for _ in Fresh._fields))
    for parts in figures(policy, groups, tail):
        for so_far, figure in zip(slope, parts, strict=True):
            for total, part in zip(so_far, torch.autograd.grad(figure, parameters, retain_graph=True), strict=True):
                total += part
    return slope


def figures(policy: Policy, groups: Sequence[Group], tail: int) -> Iterator[Fresh[Tensor]]:
    """The figures in parts, one a micro-batch, that sum to them."""
    rows = [
        to_row(t, np.full(t.num_actions, float(t.reward >= RIGHT), np.float32)) for g in groups for t in g.trajectories
    ]
    count = sum(len(row.advantages_N) for row in rows)
    rights = sum(int(row.advantages_N.sum()) for row in rows)
    for micro in micro_batches(rows, TOKEN_BUDGET):
        batch = to_tensors(micro, CPU)
        logp_NV = torch.log_softmax(action_hidden(policy, batch) @ policy.embed.weight.T, dim=-1)
        logp_N = logp_NV.gather(1, batch["targets_N"][:, None])[:, 0]
        right_N = batch["advantages_N"]
        yield Fresh(
            torch.logsumexp(logp_NV[:, tail:], dim=-1).double().sum() / count,
            -(logp_NV.exp() * logp_NV).double().sum() / count,
            (logp_N * right_N).double().sum() / max(rights, 1),
            (logp_N * (1 - right_N)).double().sum() / max(count - rights, 1),
        )


def times(step: Step, scale: Step) -> Step:
    """The step, each part of it scaled."""
    return [change * factor for change, factor in zip(step, scale, strict=True)]


def dot(step: Step, other: Step) -> float:
    """The product of two steps, summed over all parameters."""
    return float(sum((a.double() * b).sum() for a, b in zip(step, other, strict=True)))


def norm(step: Step) -> float:
    """Euclidean length over all parameters."""
    return float(torch.sqrt(sum((change.square().sum() for change in step), torch.zeros(()))))
