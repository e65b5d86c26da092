"""Token log-probabilities and policy losses, as pure functions of tensors.

N action tokens of a micro-batch (rows one after another), H hidden size, V vocabulary. Every loss is returned as a
*sum* over tokens: the caller divides by the mini-batch's global token count, never by a micro-batch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # exp(20) is finite in fp32; beyond it a ratio says nothing
CHUNK_TOKENS = 1024  # at most; a GPU reads the whole head for each chunk
CPU_CHUNK_LOGITS = 2**24  # a CPU gains little by more, and 64 MB are nothing beside a small model's activations
SUM_ROWS = 2**14  # of a head's gradient at a time, whose product is a second matrix where dtypes differ
_WIDE = ("cuda", "meta")  # devices on which bf16 operands have an fp32 product; a CPU's is bf16


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Log-probability of each sampled token and entropy of its distribution, both [N] in nats."""

    logprobs_N: Tensor
    entropy_N: Tensor


@dataclass(frozen=True, slots=True)
class Head:
    """From hidden states h to logits: z = scale · (W h + b), then cap · tanh(z / cap) where there is a cap.

    The steps after the product are those of the model's own forward pass (Gemma's soft cap, Cohere's and Granite's
    multipliers); most models have none.
    """

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def at(self, temperature: float) -> Head:
        """The head whose logits are these divided by the temperature."""
        cap = None if self.cap is None else self.cap / temperature
        return replace(self, scale=self.scale / temperature, cap=cap)

    def logits(self, hidden_CH: Tensor) -> Tensor:
        """Logits [C, V] in fp32 or better, from hidden states of the weight's dtype."""
        logits_CV = _product(hidden_CH, self.weight_VH.T)
        if self.bias_V is not None:
            logits_CV = logits_CV + self.bias_V
        if self.scale != 1.0:
            logits_CV = logits_CV * self.scale
        return logits_CV if self.cap is None else self.cap * torch.tanh(logits_CV / self.cap)


def token_stats(
    hidden_NH: Tensor, head: Head | Tensor, targets_N: Tensor, chunk_tokens: int | None = None
) -> TokenStats:
    """Log-probs of `targets_N` and entropies under the softmax of the head's logits (a tensor: its weight alone).

    The logits exist for `chunk_tokens` tokens at a time (None: `chunk_of` the device), in the backward pass too (they
    are computed again), so that memory does not grow with tokens x vocabulary. Under autocast all matrix products have
    operands of its dtype, those of the backward pass too, which runs outside of it. No tokens: empty tensors.
    """
    head = Head(head) if isinstance(head, Tensor) else head
    chunk_tokens = chunk_tokens or chunk_of(hidden_NH.device, len(head.weight_VH))
    logprobs_N, entropy_N = _ChunkedStats.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head.weight_VH, head.bias_V, targets_N, head.scale, head.cap, chunk_tokens, _operands(hidden_NH)
    )
    return TokenStats(logprobs_N, entropy_N)


def chunk_of(device: torch.device, vocabulary: int) -> int:
    """Tokens whose logits exist at once: `CHUNK_TOKENS`, on a CPU fewer where the vocabulary is large."""
    if device.type != "cpu":
        return CHUNK_TOKENS
    return min(CHUNK_TOKENS, max(64, CPU_CHUNK_LOGITS // vocabulary))


def _operands(hidden_NH: Tensor) -> torch.dtype:
    """The dtype of a product's operands: autocast's where it is on, which leaves float64 alone; else that given."""
    device = hidden_NH.device.type
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if cast and hidden_NH.dtype != torch.float64 else hidden_NH.dtype


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Their matrix product in fp32 or better, added up in fp32 at least where the device can."""
    if left.dtype in (torch.float32, torch.float64):
        return left @ right
    if left.device.type in _WIDE:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds their matrix product to `total`, in place: at once where the dtypes are equal, else `SUM_ROWS` at a time."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
        return
    for rows in _chunks(len(total), SUM_ROWS):
        total[rows] += _product(left[rows], right)


class _ChunkedStats(torch.autograd.Function):
    """log p_target and H with d/dlogits = g_logp (1_target - p) - g_H p (log p + H), a chunk at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        scale: float,
        cap: float | None,
        chunk: int,
        operands: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        ctx.given, hidden_NH = hidden_NH.dtype, hidden_NH.to(operands)
        head = Head(weight_VH.to(operands), bias_V, scale, cap)
        logprobs_N = torch.empty(len(hidden_NH), device=hidden_NH.device)
        entropy_N = torch.empty_like(logprobs_N)
        wide = torch.float64 if operands == torch.float64 else torch.float32
        # log Σ exp(z), for the backward pass
        log_total_N = torch.empty(len(hidden_NH), device=hidden_NH.device, dtype=wide)
        for rows in _chunks(len(hidden_NH), chunk):
            z_CV = head.logits(hidden_NH[rows])
            largest_C1 = z_CV.amax(dim=-1, keepdim=True)
            z_CV.sub_(largest_C1)  # in place: a chunk's logits are most of what a learner of a small model holds
            e_CV = z_CV.exp()
            total_C = e_CV.sum(dim=-1)
            logprobs_N[rows] = z_CV.gather(-1, targets_N[rows, None])[:, 0] - total_C.log()
            entropy_N[rows] = total_C.log() - e_CV.mul_(z_CV).sum(dim=-1) / total_C
            log_total_N[rows] = largest_C1[:, 0] + total_C.log()
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, entropy_N, log_total_N)
        ctx.set_materialize_grads(False)  # the entropy's is None where no loss has it
        ctx.scale, ctx.cap, ctx.chunk = scale, cap, chunk
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, targets_N, entropy_N, log_total_N = ctx.saved_tensors
        from_logprobs_N, from_entropy_N = gradients
        if from_logprobs_N is None:
            from_logprobs_N = torch.zeros_like(entropy_N)
        head = Head(weight_VH.to(hidden_NH.dtype), bias_V, ctx.scale, ctx.cap)
        d_hidden_NH = torch.empty_like(hidden_NH, dtype=ctx.given)
        d_weight_VH = _zeros(weight_VH) if ctx.needs_input_grad[1] else None  # a frozen head has none
        d_bias_V = _zeros(bias_V) if ctx.needs_input_grad[2] else None
        for rows in _chunks(len(hidden_NH), ctx.chunk):
            logits_CV = head.logits(hidden_NH[rows])
            slope_CV = None if head.cap is None else 1 - (logits_CV / head.cap) ** 2  # d tanh(x) = 1 - tanh(x)²
            logp_CV = logits_CV.sub_(log_total_N[rows, None])
            if from_entropy_N is None:
                d_logits_CV = logp_CV.exp_().mul_(-from_logprobs_N[rows, None])
            else:
                weight_CV = (logp_CV + entropy_N[rows, None]).mul_(from_entropy_N[rows, None])
                d_logits_CV = logp_CV.exp_().mul_(weight_CV.add_(from_logprobs_N[rows, None])).neg_()
            d_logits_CV.scatter_add_(-1, targets_N[rows, None], from_logprobs_N[rows, None])
            if slope_CV is not None:
                d_logits_CV.mul_(slope_CV)
            if head.scale != 1.0:
                d_logits_CV.mul_(head.scale)
            if d_bias_V is not None:
                d_bias_V += d_logits_CV.sum(dim=0)
            d_logits_CV = d_logits_CV.to(hidden_NH.dtype)
            d_hidden_NH[rows] = _product(d_logits_CV, head.weight_VH).to(ctx.given)
            if d_weight_VH is not None:
                _add_product(d_weight_VH, d_logits_CV.T, hidden_NH[rows])
        return d_hidden_NH, d_weight_VH, d_bias_V, None, None, None, None, None


def _zeros(weight: Tensor) -> Tensor:
    """For its gradient, in fp32 or better: autograd casts the sum once, where each chunk's would be rounded."""
    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))


def _chunks(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))


def likelihood_drop(
    logprobs_N: Tensor, old_logprobs_N: Tensor, weights_N: Tensor, segment_N: Tensor | None = None
) -> Tensor:
    """Σ_segments 1[Σ_k Δ_k > 0] · Σ_k w_k max(0, Δ_k), Δ = log π_old - log π (LLD).

    The sums in the gate run over a segment's tokens of positive weight or not alike; tokens with equal `segment_N` are
    one segment, None makes each token its own. Exactly 0, with zero gradient, at π = π_old.
    """
    drop_N = (old_logprobs_N - logprobs_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    falls_N = drop_N.detach()
    if segment_N is not None:
        _, which_N = torch.unique(segment_N, return_inverse=True)
        falls_S = torch.zeros(len(segment_N), device=drop_N.device).index_add_(0, which_N, falls_N)
        falls_N = falls_S[which_N]
    return (weights_N * (falls_N > 0) * drop_N.clamp(min=0)).sum()


def value_loss(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, clip: float) -> Tensor:
    """½ Σ max((V - R)², (V_clipped - R)²) with V_clipped within ± `clip` of the old value (PPO)."""
    clipped_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_N - returns_N) ** 2, (clipped_N - returns_N) ** 2).sum()


def low_variance_kl(logprobs_N: Tensor, reference_logprobs_N: Tensor) -> Tensor:
    """Σ (e^d - d - 1), d = log π_ref - log π: Schulman's non-negative estimate of KL(π ‖ π_ref). 0 at π = π_ref."""
    difference_N = (reference_logprobs_N - logprobs_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return (difference_N.exp() - difference_N - 1).sum()
