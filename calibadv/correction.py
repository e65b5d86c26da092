"""What is done about log-probs on which the learner and the engine that sampled do not agree.

Both are of the same weights; numerics differ, and a nucleus (`top_p`) makes the engine's text another policy's. Each
function gives a factor a token [N], without gradient, for the surrogate alone; no divisor knows of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibadv.losses import LOG_RATIO_LIMIT

Bounds = tuple[float, float]


def importance_weights(old_logprobs_N: Tensor, sampler_logprobs_N: Tensor, cap: float) -> Tensor:
    """min(π_old / π_sampler, cap) per token: truncated importance sampling between learner and engine numerics."""
    return _log_ratio(old_logprobs_N, sampler_logprobs_N).exp().clamp(max=cap)


def token_mask(old_logprobs_N: Tensor, sampler_logprobs_N: Tensor, bounds: Bounds) -> Tensor:
    """Whether π_old / π_sampler of the token lies in the bounds, which belong to them (2512.23075). Bool [N]."""
    ratio_N = _log_ratio(old_logprobs_N, sampler_logprobs_N).exp()
    return (ratio_N >= bounds[0]) & (ratio_N <= bounds[1])


def rollout_mask(old_logprobs_N: Tensor, sampler_logprobs_N: Tensor, row_N: Tensor, bounds: Bounds) -> Tensor:
    """Whether the geometric mean of π_old / π_sampler over the token's rollout lies in the bounds (2512.23075).

    Bool [N], equal for all tokens of a rollout. `row_N`: whole rollouts, numbered.
    """
    log_ratio_N = _log_ratio(old_logprobs_N, sampler_logprobs_N)
    mean_N = (sum_by_row(log_ratio_N, row_N) / sum_by_row(torch.ones_like(log_ratio_N), row_N)).exp()
    return (mean_N >= bounds[0]) & (mean_N <= bounds[1])


def sum_by_row(values_N: Tensor, row_N: Tensor) -> Tensor:
    """At each token [N] the sum over all tokens of its row."""
    rows = int(row_N.max()) + 1 if len(row_N) else 0
    return values_N.new_zeros(rows).index_add_(0, row_N, values_N)[row_N]


def _log_ratio(old_logprobs_N: Tensor, sampler_logprobs_N: Tensor) -> Tensor:
    return (old_logprobs_N - sampler_logprobs_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
