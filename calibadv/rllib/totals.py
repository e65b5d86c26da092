"""What an update reports: token sums that ranks add up, so that every mean is divided once, by global counts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calibadv.rllib.signal import Signal
from calibadv.types import Credit, FloatArray

ROUNDING = 1e-6  # of a mean of squares of float32 values: a variance below it is none


@dataclass(slots=True)
class UpdateTotals:
    """Sums over the action tokens that one rank trained in one step, and counts that are equal on every rank."""

    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    losses: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # over updates, by term
    grad_norms: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # over updates made
    clipped: Counter[int] = field(default_factory=Counter)  # token id -> times the clip cut its gradient off
    # Question id -> the advantages [N] that trained, by the number of the rollout in its group.
    credit: dict[str, dict[int, FloatArray]] = field(default_factory=dict)
    max_logprob_diff: float = 0.0
    updates: int = 0
    skipped_updates: int = 0  # loss or gradient not finite
    lr: float = 0.0

    def add_tokens(self, batch: dict[str, Tensor], out: dict[str, Tensor], *, fresh: bool) -> None:
        """Adds a micro-batch. `fresh`: it is of the first mini-batch, whose forward pass uses the step's first weights.

        Those sampled it, or with `max_staleness` = 1 the version before.
        """
        with torch.no_grad():
            logprobs_N = out["logprobs_N"]
            self.sums["tokens"] += len(logprobs_N)
            self.sums["entropy"] += float(out["entropy_N"].sum())
            if (clipped_N := out.get("clipped_N")) is not None:
                self.sums["clipped"] += float(clipped_N.sum())
                self.clipped.update(batch["targets_N"][clipped_N].tolist())
            if (masked_N := out.get("masked_N")) is not None:
                self.sums["masked"] += float(masked_N.sum())
            if (values_N := out.get("values_N")) is not None and fresh:
                returns_N = batch["returns_N"]
                for name, flat_N in (("returns", returns_N), ("misses", returns_N - values_N)):
                    self.sums[name] += float(flat_N.sum())
                    self.sums[f"{name}_squared"] += float((flat_N**2).sum())
            if fresh and len(logprobs_N):
                diff_N = (logprobs_N - batch["sampler_logprobs_N"]).abs()
                self.sums["fresh_tokens"] += len(diff_N)
                self.sums["logprob_diff"] += float(diff_N.sum())
                self.max_logprob_diff = _largest([self.max_logprob_diff, float(diff_N.max())])

    def add_losses(self, terms: Mapping[str, float]) -> None:
        """Adds a micro-batch's part of each loss term."""
        for name, value in terms.items():
            self.losses[name] += value

    def add_update(self, grad_norms: Mapping[str, float], lr: float, signal: Signal, *, skipped: bool) -> None:
        """Counts an update; one whose loss or gradient was not finite is `skipped`."""
        self.updates += 1
        self.skipped_updates += skipped
        for name, value in grad_norms.items():
            self.grad_norms[name] += 0.0 if skipped else value
        for part, product in signal._asdict().items():
            self.sums[f"signal_{part}"] += product
        self.lr = lr

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, to travel between processes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}


def step_metrics(ranks: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Metrics of a step from the totals of all ranks. A mean over nothing is left out, never nan."""
    sums, losses = _added(ranks, "sums"), _added(ranks, "losses")
    shared = ranks[0]
    made = shared["updates"] - shared["skipped_updates"]
    metrics = {
        "learner/updates": float(shared["updates"]),
        "learner/skipped_updates": float(shared["skipped_updates"]),
        "learner/lr": shared["lr"],
        "learner/tokens": sums["tokens"],
    }
    if made:
        norms = {name: norm / made for name, norm in shared["grad_norms"].items()}
        metrics |= {f"learner/{_prefix(name)}grad_norm": norm for name, norm in norms.items()}
    if sums["signal_own"]:  # alike on all ranks, so that their number cancels out
        metrics["learner/signal_share"] = sums["signal_common"] / sums["signal_own"]
    if shared["updates"]:
        metrics["learner/loss"] = sum(losses.values()) / shared["updates"]
        metrics |= {f"learner/{name}_loss": value / shared["updates"] for name, value in losses.items()}
    if sums["tokens"]:
        metrics["learner/clipped_share"] = sums["clipped"] / sums["tokens"]
        metrics["policy/entropy"] = sums["entropy"] / sums["tokens"]
        if "masked" in sums:
            metrics["learner/masked_share"] = sums["masked"] / sums["tokens"]
    if sums["fresh_tokens"]:
        metrics["sync/logprob_diff_mean"] = sums["logprob_diff"] / sums["fresh_tokens"]
        metrics["sync/logprob_diff_max"] = _largest([totals["max_logprob_diff"] for totals in ranks])
    if "returns" in sums and sums["fresh_tokens"]:
        metrics["critic/return_mean"] = sums["returns"] / sums["fresh_tokens"]
        if (spread := _variance(sums, "returns")) > ROUNDING * sums["returns_squared"] / sums["fresh_tokens"]:
            metrics["critic/explained_variance"] = 1 - _variance(sums, "misses") / spread
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def clipped_tokens(ranks: Sequence[dict[str, Any]]) -> Counter[int]:
    """How often the clip acted on each token id in the step, over all ranks."""
    return sum((Counter(totals["clipped"]) for totals in ranks), Counter())


def trained_credit(ranks: Sequence[dict[str, Any]]) -> dict[str, Credit]:
    """The advantages that trained, by question id, over all ranks."""
    merged: defaultdict[str, dict[int, FloatArray]] = defaultdict(dict)
    for totals in ranks:
        for question, credit_of in totals["credit"].items():
            merged[question] |= credit_of
    return {question: [credit_of[i] for i in sorted(credit_of)] for question, credit_of in merged.items()}


def _largest(values: Sequence[float]) -> float:
    """nan where one is: Python's `max` may pass over it."""
    return float(np.max(values))


def _added(ranks: Sequence[dict[str, Any]], name: str) -> defaultdict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for totals in ranks:
        for key, value in totals[name].items():
            total[key] += value
    return total


def _variance(sums: Mapping[str, float], name: str) -> float:
    count = sums["fresh_tokens"]
    return sums[f"{name}_squared"] / count - (sums[name] / count) ** 2


def _prefix(name: str) -> str:
    return "" if name == "policy" else f"{name}_"
