"""What an update minimises: the surrogate, KL and entropy where they are on, the method's own term, the critic's error.

Each term is a micro-batch's part of a mini-batch's loss: a sum over tokens, divided by what the whole mini-batch counts
over all learners. N action tokens of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from calibadv.config import LearnerConfig
from calibadv.correction import importance_weights, rollout_mask, sum_by_row, token_mask
from calibadv.losses import low_variance_kl, value_loss
from calibadv.methods.method import LossTokens, Method
from calibadv.micro_batches import MicroBatch
from calibadv.rllib.ranks import sum_over_ranks
from calibadv.surrogates import PolicyTokens, Segment, SurrogateFn, cispo, gspo, ppo, sapo
from calibadv.types import FloatArray, IntArray

_NO_TOKENS = 1e-9  # where every token weighs nothing: its sum is 0 too


@dataclass(frozen=True, slots=True)
class Divisors:
    """Counts of a mini-batch over all ranks."""

    surrogate: float  # by `learner.divisor`: Σ weights, which is the number of action tokens where every weight is 1
    kept: float  # action tokens that weigh more than 0: for KL and entropy terms
    actions: float  # action tokens, whatever they weigh: for the critic
    extra: float  # tokens that the method's own term counts


def to_tensors(micro: MicroBatch, device: torch.device) -> dict[str, Tensor]:
    """Every array of the micro-batch by its field name, on the learner's device; dtypes are kept.

    Lengths of segments stay on the CPU, which is where they are read.
    """
    arrays = {name: getattr(micro, name) for name in ("ids_BT", "predicts_N", "targets_N", "row_N")} | {**micro.tokens}
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    if (segments := micro.segments) is not None:
        tensors |= {name: torch.from_numpy(getattr(segments, name)).to(device) for name in ("positions_T", "keys_K")}
        tensors |= {name: torch.from_numpy(getattr(segments, name)) for name in ("lengths_S", "key_lengths_S")}
    return tensors


def count(minibatch: Sequence[MicroBatch], device: torch.device, settings: LearnerConfig) -> Divisors:
    """The divisors of a mini-batch of which each rank holds a part. Collective."""
    local = [
        sum(_surrogate_divisor(micro.tokens["weights_N"], micro.row_N, settings) for micro in minibatch),
        float(sum(int((micro.tokens["weights_N"] > 0).sum()) for micro in minibatch)),
        float(sum(micro.num_actions for micro in minibatch)),
        sum(float(micro.tokens["extra_counts_N"].sum()) for micro in minibatch),
    ]
    return Divisors(*sum_over_ranks(local, device))


def _surrogate_divisor(weights_N: FloatArray, row_N: IntArray, settings: LearnerConfig) -> float:
    """What a micro-batch adds to the surrogate's divisor: Σ weights, or its rollouts that weigh anything.

    "constant": those, times `learner.divisor_tokens` (Dr. GRPO).
    """
    if settings.divisor == "tokens":
        return float(weights_N.sum())
    return float(len(np.unique(row_N[weights_N > 0])) * (settings.divisor_tokens or 1))


def surrogate_of(settings: LearnerConfig, method: Method) -> SurrogateFn:
    """The method's own surrogate, or that of `learner.surrogate` with its numbers."""
    if method.surrogate is not None:
        return method.surrogate
    low, high = settings.clip, settings.clip if settings.clip_high is None else settings.clip_high
    if settings.surrogate == "cispo":
        return partial(cispo, low=low, high=high)
    if settings.surrogate == "sapo":
        return partial(sapo, positive=settings.sapo_tau[0], negative=settings.sapo_tau[1])
    if settings.surrogate == "ppo":
        return partial(ppo, low=low, high=high, dual=settings.dual_clip)
    segment: Segment = "turn" if settings.surrogate == "gspo_turn" else "rollout"
    return partial(gspo, low=low, high=high, dual=settings.dual_clip, segment=segment)


def loss_terms(
    batch: Mapping[str, Tensor], out: dict[str, Tensor], divisors: Divisors, settings: LearnerConfig, method: Method
) -> dict[str, Tensor]:
    """The terms by name; their sum over micro-batches and ranks is the loss.

    `batch` as `to_tensors` makes it, `out` as the module's `forward_train`. Sets `clipped_N` in `out`, and `masked_N`
    where a mask is on.
    """
    logprobs_N, old_logprobs_N, weights_N = out["logprobs_N"], batch["old_logprobs_N"], batch["weights_N"]
    row_N, turn_N = batch["row_N"], batch["turn_N"]
    kept_N = weights_N > 0  # what a method takes out of the surrogate trains in no other term of the policy either
    if settings.divisor == "sequences":  # each rollout weighs 1, however long it is
        weights_N = weights_N / sum_by_row(weights_N, row_N).clamp(min=_NO_TOKENS)
    weights_N = _corrected(weights_N, kept_N, batch, out, settings)
    tokens = PolicyTokens(logprobs_N, old_logprobs_N, batch["advantages_N"], row_N, turn_N)
    surrogate = surrogate_of(settings, method)(tokens)
    clipped_N = surrogate.clipped_N
    out["clipped_N"] = torch.zeros_like(kept_N) if clipped_N is None else clipped_N & kept_N
    terms = {"surrogate": -(surrogate.objective_N * weights_N).sum() / max(divisors.surrogate, _NO_TOKENS)}
    if settings.kl_coef:
        kl_sum = low_variance_kl(logprobs_N[kept_N], out["reference_logprobs_N"][kept_N])
        terms["kl"] = settings.kl_coef * kl_sum / max(divisors.kept, _NO_TOKENS)
    if settings.entropy_coef:
        entropy_sum = out["entropy_N"][kept_N].sum()
        terms["entropy"] = -settings.entropy_coef * entropy_sum / max(divisors.kept, _NO_TOKENS)
    if (extra := method.extra_loss) is not None and divisors.extra:
        weighed = LossTokens(logprobs_N, old_logprobs_N, batch["extra_weights_N"], row_N=row_N, turn_N=turn_N)
        terms["extra"] = extra.coef * extra.loss(weighed) / divisors.extra
    if (critic := method.critic) is not None:
        error_sum = value_loss(out["values_N"], batch["values_N"], batch["returns_N"], critic.clip)
        terms["value"] = error_sum / divisors.actions
    return terms


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(list(terms.values())).sum()


def _corrected(
    weights_N: Tensor, kept_N: Tensor, batch: Mapping[str, Tensor], out: dict[str, Tensor], settings: LearnerConfig
) -> Tensor:
    """The weights times what corrects for the sampler: a truncated ratio, and 0 where a mask drops the token."""
    old_logprobs_N, sampler_logprobs_N = batch["old_logprobs_N"], batch.get("sampler_logprobs_N")
    if settings.importance_cap is not None:
        assert sampler_logprobs_N is not None
        weights_N = weights_N * importance_weights(old_logprobs_N, sampler_logprobs_N, settings.importance_cap)
    if settings.token_mask is None and settings.rollout_mask is None:
        return weights_N
    assert sampler_logprobs_N is not None
    stays_N = torch.ones_like(kept_N)
    if settings.token_mask is not None:
        stays_N = stays_N & token_mask(old_logprobs_N, sampler_logprobs_N, settings.token_mask)
    if settings.rollout_mask is not None:
        stays_N = stays_N & rollout_mask(old_logprobs_N, sampler_logprobs_N, batch["row_N"], settings.rollout_mask)
    out["masked_N"] = kept_N & ~stays_N
    return weights_N * stays_N
