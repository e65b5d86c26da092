"""Which way does each credit push a frozen policy? One summed step of each, and what it does to fresh rollouts.

No training, hence no luck of a run. For samples of a distribution μ the expected gradient of a constant advantage A is
A E_μ[∇ log π] = -A ∇ KL(μ || π): zero where μ = π, and towards or away from μ elsewhere, by its sign. A sampler that
cuts the distribution off (top_p < 1) while the log-probs are of all of it is such a μ.

M mini-batches of the summed step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from calibadv.batching import micro_batches, to_row
from calibadv.lab.controls import lab_method, masses
from calibadv.lab.diagnostics import RIGHT
from calibadv.lab.learner import CPU, TOKEN_BUDGET, action_hidden
from calibadv.lab.policy import Policy
from calibadv.losses import token_stats
from calibadv.methods.method import Method
from calibadv.rllib.objective import to_tensors
from calibadv.types import Credit, Group

ADAM_EPSILON = 1e-8
MINIBATCHES = 16

Step = list[Tensor]  # a change of every parameter


class Fresh(NamedTuple):
    """Means over fresh rollouts of the policy that was frozen, under a policy that may have moved."""

    log_tail_mass: float  # of the log of the probability of all words that nobody uses
    entropy: float  # nats
    logprob_right: float  # of the tokens of right rollouts, nats
    logprob_wrong: float


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

    "adam": the mini-batches' summed gradient over the root of their mean square, times `lr`. "sgd": the plain sum,
    scaled to the length of the first credit's Adam step, so that directions are compared. `tail`: id of its first word.
    """
    before = measured(policy, fresh, tail)
    rows, length = [], 0.0
    for name, method in credits.items():
        gradients = minibatch_gradients(policy, train, method)
        total = [torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)]
        square = [torch.stack(parts).square().mean(0) for parts in zip(*gradients, strict=True)]
        adam = [lr * g / (v.sqrt() + ADAM_EPSILON) for g, v in zip(total, square, strict=True)]
        length = length or norm(adam)
        sgd = [g * (length / max(norm(total), ADAM_EPSILON)) for g in total]
        positive, negative = masses([row_N for group in train for row_N in method.advantages(group)])
        for optimizer, step in (("adam", adam), ("sgd", sgd)):
            after = measured(moved(policy, step), fresh, tail)
            change = {name: a - b for name, a, b in zip(Fresh._fields, after, before, strict=True)}
            ratio = negative / positive if positive else float("inf")
            rows.append({"credit": name, "optimizer": optimizer, "N/P": ratio, "gradient norm": norm(total), **change})
    return pd.DataFrame(rows)


def minibatch_gradients(policy: Policy, groups: Sequence[Group], method: Method) -> list[Step]:
    """Of each of the mini-batches: the gradient of - Σ A log π / tokens, groups dealt in order."""
    bounds = np.linspace(0, len(groups), MINIBATCHES + 1).astype(int)
    gradients = []
    for start, end in pairwise(bounds):
        rows = [
            to_row(trajectory, advantages_N)
            for group in groups[start:end]
            for trajectory, advantages_N in zip(group.trajectories, method.advantages(group), strict=True)
        ]
        policy.zero_grad(set_to_none=True)
        tokens = sum(len(row.advantages_N) for row in rows)
        for micro in micro_batches([row for row in rows if row.advantages_N.any()], TOKEN_BUDGET):
            batch = to_tensors(micro, CPU)
            stats = token_stats(action_hidden(policy, batch), policy.embed.weight, batch["ids_BT"][batch["action_BT"]])
            torch.autograd.backward(-(batch["advantages_N"] * stats.logprobs_N).sum() / tokens)
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.parameters()])
    policy.zero_grad(set_to_none=True)
    return gradients


def moved(policy: Policy, step: Step) -> Policy:
    """A copy of the policy, one step down the gradient."""
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter, change in zip(copied.parameters(), step, strict=True):
            parameter.sub_(change)
    return copied


@torch.no_grad()
def measured(policy: Policy, groups: Sequence[Group], tail: int) -> Fresh:
    """The figures of the policy over the groups' action tokens."""
    sums = dict.fromkeys(("tail", "entropy", "right", "wrong"), 0.0)
    counts = dict.fromkeys(("all", "right", "wrong"), 0)
    rows = [
        to_row(t, np.full(t.num_actions, float(t.reward >= RIGHT), np.float32)) for g in groups for t in g.trajectories
    ]
    for micro in micro_batches(rows, TOKEN_BUDGET):
        batch = to_tensors(micro, CPU)
        logp_NV = torch.log_softmax(action_hidden(policy, batch) @ policy.embed.weight.T, dim=-1)
        logp_N = logp_NV.gather(1, batch["ids_BT"][batch["action_BT"]][:, None])[:, 0]
        right_N = batch["advantages_N"] > 0
        sums["tail"] += float(torch.logsumexp(logp_NV[:, tail:], dim=-1).sum())
        sums["entropy"] -= float((logp_NV.exp() * logp_NV).sum())
        sums["right"] += float(logp_N[right_N].sum())
        sums["wrong"] += float(logp_N[~right_N].sum())
        counts["all"] += len(logp_N)
        counts["right"] += int(right_N.sum())
        counts["wrong"] += int((~right_N).sum())
    return Fresh(
        sums["tail"] / counts["all"],
        sums["entropy"] / counts["all"],
        sums["right"] / max(counts["right"], 1),
        sums["wrong"] / max(counts["wrong"], 1),
    )


def norm(step: Step) -> float:
    """Euclidean length over all parameters."""
    return float(torch.sqrt(sum((change.square().sum() for change in step), torch.zeros(()))))
