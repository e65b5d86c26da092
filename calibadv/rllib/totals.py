"""What an update reports: token sums that ranks add up, so that every mean is divided once, by global counts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class UpdateTotals:
    """Sums over the action tokens that one rank trained in one step, and counts that are equal on every rank."""

    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    clipped: Counter[int] = field(default_factory=Counter)  # token id -> times the clip cut its gradient off
    max_logprob_diff: float = 0.0
    updates: int = 0
    skipped_updates: int = 0  # loss or gradient not finite
    grad_norms: float = 0.0  # sum over the updates that were made
    lr: float = 0.0

    def add_tokens(self, batch: dict[str, Tensor], out: dict[str, Tensor], loss_sum: Tensor, *, fresh: bool) -> None:
        """Adds a micro-batch. `fresh`: its forward pass used the very weights that sampled it (first mini-batch)."""
        with torch.no_grad():
            logprobs_N, clipped_N = out["logprobs_N"], out["clipped_N"]
            self.sums["tokens"] += len(logprobs_N)
            self.sums["loss"] += float(loss_sum.detach())
            self.sums["entropy"] += float(out["entropy_N"].sum())
            self.sums["clipped"] += float(clipped_N.sum())
            self.sums["kl"] += float(out.get("kl_sum", 0.0))
            self.clipped.update(batch["ids_BT"][batch["action_BT"]][clipped_N].tolist())
            if fresh and len(logprobs_N):
                diff_N = (logprobs_N - batch["sampler_logprobs_N"]).abs()
                self.sums["fresh_tokens"] += len(diff_N)
                self.sums["logprob_diff"] += float(diff_N.sum())
                self.max_logprob_diff = max(self.max_logprob_diff, float(diff_N.max()))

    def add_update(self, grad_norm: float, lr: float, *, skipped: bool) -> None:
        """Counts an update; one whose loss or gradient was not finite is `skipped`."""
        self.updates += 1
        self.skipped_updates += skipped
        self.grad_norms += 0.0 if skipped else grad_norm
        self.lr = lr

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, to travel between processes."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "sums": dict(self.sums),
            "clipped": dict(self.clipped),
        }


def step_metrics(ranks: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Metrics of a step from the totals of all ranks. A mean over nothing is left out, never nan."""
    sums: defaultdict[str, float] = defaultdict(float)
    for totals in ranks:
        for name, value in totals["sums"].items():
            sums[name] += value
    shared = ranks[0]
    made = shared["updates"] - shared["skipped_updates"]
    metrics = {
        "learner/updates": float(shared["updates"]),
        "learner/skipped_updates": float(shared["skipped_updates"]),
        "learner/lr": shared["lr"],
        "learner/tokens": float(sums["tokens"]),
    }
    if made:
        metrics["learner/grad_norm"] = shared["grad_norms"] / made
    if sums["tokens"]:
        per_token = {name: sums[name] / sums["tokens"] for name in ("loss", "entropy", "clipped", "kl")}
        metrics |= {
            "learner/loss": per_token["loss"],
            "learner/clipped_share": per_token["clipped"],
            "learner/kl": per_token["kl"],
            "policy/entropy": per_token["entropy"],
        }
    if sums["fresh_tokens"]:
        metrics["sync/logprob_diff_mean"] = sums["logprob_diff"] / sums["fresh_tokens"]
        metrics["sync/logprob_diff_max"] = max(totals["max_logprob_diff"] for totals in ranks)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def clipped_tokens(ranks: Sequence[dict[str, Any]]) -> Counter[int]:
    """How often the clip acted on each token id in the step, over all ranks."""
    return sum((Counter(totals["clipped"]) for totals in ranks), Counter())
