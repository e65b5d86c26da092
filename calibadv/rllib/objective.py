"""What an update minimises: the surrogate, KL and entropy where they are on, the method's own term, the critic's error.

Each term is a micro-batch's part of a mini-batch's loss: a sum over tokens, divided by what the whole mini-batch counts
over all learners. N action tokens of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calibadv.batching import MicroBatch
from calibadv.config import LearnerConfig
from calibadv.losses import clipped_surrogate, importance_weights, low_variance_kl, value_loss
from calibadv.methods.method import LossTokens, Method
from calibadv.rllib.ranks import sum_over_ranks

_NO_TOKENS = 1e-9  # where every token weighs nothing: its sum is 0 too


@dataclass(frozen=True, slots=True)
class Divisors:
    """Counts of a mini-batch over all ranks."""

    tokens: float  # Σ weights in the surrogate: the number of action tokens where every weight is 1
    kept: float  # action tokens that weigh more than 0: for KL and entropy terms
    actions: float  # action tokens, whatever they weigh: for the critic
    extra: float  # tokens that the method's own term counts


def to_tensors(micro: MicroBatch, device: torch.device) -> dict[str, Tensor]:
    """Every array of the micro-batch by its field name, on the learner's device; dtypes are kept."""
    arrays = {"ids_BT": micro.ids_BT, "action_BT": micro.action_BT, "row_N": micro.row_N, **micro.tokens}
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def count(minibatch: Sequence[MicroBatch], device: torch.device) -> Divisors:
    """The divisors of a mini-batch of which each rank holds a part. Collective."""
    local = [
        sum(float(micro.tokens["weights_N"].sum()) for micro in minibatch),
        float(sum(int((micro.tokens["weights_N"] > 0).sum()) for micro in minibatch)),
        float(sum(micro.num_actions for micro in minibatch)),
        sum(float(micro.tokens["extra_counts_N"].sum()) for micro in minibatch),
    ]
    return Divisors(*sum_over_ranks(local, device))


def loss_terms(
    batch: Mapping[str, Tensor], out: dict[str, Tensor], divisors: Divisors, settings: LearnerConfig, method: Method
) -> dict[str, Tensor]:
    """The terms by name; their sum over micro-batches and ranks is the loss. Sets `clipped_N` in `out`.

    `batch` as `to_tensors` makes it, `out` as the module's `forward_train`.
    """
    logprobs_N, old_logprobs_N, weights_N = out["logprobs_N"], batch["old_logprobs_N"], batch["weights_N"]
    kept_N = weights_N > 0  # what a method takes out of the surrogate trains in no other term of the policy either
    if settings.importance_cap is not None:
        cap = settings.importance_cap
        weights_N = weights_N * importance_weights(old_logprobs_N, batch["sampler_logprobs_N"], cap)
    surrogate = clipped_surrogate(
        logprobs_N, old_logprobs_N, batch["advantages_N"], clip=settings.clip, weights_N=weights_N
    )
    out["clipped_N"] = surrogate.clipped_N & kept_N
    terms = {"surrogate": surrogate.loss_sum / max(divisors.tokens, _NO_TOKENS)}
    if settings.kl_coef:
        kl_sum = low_variance_kl(logprobs_N[kept_N], out["reference_logprobs_N"][kept_N])
        terms["kl"] = settings.kl_coef * kl_sum / max(divisors.kept, _NO_TOKENS)
    if settings.entropy_coef:
        entropy_sum = out["entropy_N"][kept_N].sum()
        terms["entropy"] = -settings.entropy_coef * entropy_sum / max(divisors.kept, _NO_TOKENS)
    if (extra := method.extra_loss) is not None and divisors.extra:
        tokens = LossTokens(
            logprobs_N, old_logprobs_N, batch["extra_weights_N"], row_N=batch["row_N"], turn_N=batch["turn_N"]
        )
        terms["extra"] = extra.coef * extra.loss(tokens) / divisors.extra
    if (critic := method.critic) is not None:
        error_sum = value_loss(out["values_N"], batch["values_N"], batch["returns_N"], critic.clip)
        terms["value"] = error_sum / divisors.actions
    return terms


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(list(terms.values())).sum()
