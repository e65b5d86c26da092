"""Token log-probabilities and policy losses, as pure functions of tensors.

N action tokens of a micro-batch (rows one after another), H hidden size, V vocabulary. Every loss is returned as a
*sum* over tokens: the caller divides by the mini-batch's global token count, never by a micro-batch's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOG_RATIO_LIMIT = 20.0  # exp(20) is finite in fp32; beyond it a ratio says nothing
CHUNK_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Log-probability of each sampled token and entropy of its distribution, both [N] in nats."""

    logprobs_N: Tensor
    entropy_N: Tensor


def token_stats(hidden_NH: Tensor, head_VH: Tensor, targets_N: Tensor, chunk_tokens: int = CHUNK_TOKENS) -> TokenStats:
    """Log-probs of `targets_N` and entropies under softmax(hidden @ head.T), in fp32.

    The logits exist for `chunk_tokens` tokens at a time, in the backward pass too (they are computed again), so that
    memory does not grow with tokens x vocabulary. No tokens: empty tensors.
    """
    if hidden_NH.shape[0] == 0:
        empty = hidden_NH.sum(dim=-1).float()
        return TokenStats(empty, empty)
    pairs = zip(torch.split(hidden_NH, chunk_tokens), torch.split(targets_N, chunk_tokens), strict=True)
    chunks = [checkpoint(_chunk_stats, hidden, head_VH, targets, use_reentrant=False) for hidden, targets in pairs]
    logprobs, entropies = zip(*chunks, strict=True)
    return TokenStats(torch.cat(logprobs), torch.cat(entropies))


def _chunk_stats(hidden_CH: Tensor, head_VH: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    logits_CV = (hidden_CH @ head_VH.T).float()
    log_normalizer_C = torch.logsumexp(logits_CV, dim=-1)
    logprobs_C = logits_CV.gather(-1, targets_C[:, None])[:, 0] - log_normalizer_C
    probabilities_CV = torch.exp(logits_CV - log_normalizer_C[:, None])
    entropy_C = log_normalizer_C - (probabilities_CV * logits_CV).sum(dim=-1)
    return logprobs_C, entropy_C


@dataclass(frozen=True, slots=True)
class Surrogate:
    """Sum of the clipped policy loss, and which tokens [N] the clip cut off from the gradient."""

    loss_sum: Tensor
    clipped_N: Tensor
    ratio_N: Tensor


def clipped_surrogate(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    clip: float = 0.2,
    weights_N: Tensor | None = None,
) -> Surrogate:
    """-Σ w · min(ratio·A, clip(ratio, 1 ± clip)·A) with log-ratios clamped to ±20 (CalibAdv sec. 3.1, PPO).

    Zero advantages give exactly zero loss and gradient.
    """
    log_ratio_N = (logprobs_N - old_logprobs_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio_N = log_ratio_N.exp()
    free_N = ratio_N * advantages_N
    bounded_N = ratio_N.clamp(1 - clip, 1 + clip) * advantages_N
    objective_N = torch.minimum(free_N, bounded_N)
    if weights_N is not None:
        objective_N = objective_N * weights_N
    return Surrogate(-objective_N.sum(), bounded_N < free_N, ratio_N.detach())


def low_variance_kl(logprobs_N: Tensor, reference_logprobs_N: Tensor) -> Tensor:
    """Σ (e^d - d - 1), d = log π_ref - log π: Schulman's non-negative estimate of KL(π ‖ π_ref). 0 at π = π_ref."""
    difference_N = (reference_logprobs_N - logprobs_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return (difference_N.exp() - difference_N - 1).sum()


def importance_weights(old_logprobs_N: Tensor, sampler_logprobs_N: Tensor, cap: float) -> Tensor:
    """min(π_old / π_sampler, cap) per token: truncated importance sampling between learner and engine numerics."""
    return (old_logprobs_N - sampler_logprobs_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp(max=cap)
