"""The time of a step's updates: passes through the model, what learners send each other, and AdamW."""

from __future__ import annotations

import math
from statistics import NormalDist

from calibadv.memory.shape import ModelShape
from calibadv.step_time.flops import Phase, head_flops, layer_flops
from calibadv.step_time.gpu import TERA, Gpu
from calibadv.step_time.layout import Learners
from calibadv.step_time.work import Assumptions, Work

ADAMW_BYTES = 28  # a parameter: weights, gradient and two moments are read, all but the gradient written, fp32


def learning_phase(shape: ModelShape, gpu: Gpu, work: Work, learners: Learners, assumed: Assumptions) -> Phase:
    """All updates of a step. Nothing of what is sent is hidden behind arithmetic (`overlap_comm` is off)."""
    rate = learners.number * gpu.flops_per_s(learners.dtype) * assumed.learner_mfu
    trained_s = learners.passes * training_flops(shape, work, learners) / rate
    slowest = slowest_share(learners.number, work.rollouts, learners.updates)
    micro = micro_batches(work, learners)
    updates = learners.passes * learners.updates
    sent = updates * sent_bytes(shape, learners, micro)
    stepped = learners.models * shape.parameters / (learners.number if learners.zero else 1) * (not learners.adapters)
    parts = {
        "training passes": trained_s,
        "further forward passes": learners.forwards * forward_flops(shape, work) / rate,
        "waiting for the slowest learner": trained_s * (slowest - 1),
        "gradients and weights sent": sent / (gpu.bus_bytes_per_s(learners.number) * assumed.links),
        "AdamW": updates * ADAMW_BYTES * stepped / (gpu.hbm_tb_s * TERA * assumed.bandwidth),
    }
    bounds = {
        "training passes": "arithmetic",
        "further forward passes": "arithmetic",
        "waiting for the slowest learner": "uneven mini-batches",
        "gradients and weights sent": "links between learners",
        "AdamW": "memory",
    }
    return Phase(parts, bounds[max(parts, key=parts.__getitem__)])


def training_flops(shape: ModelShape, work: Work, learners: Learners) -> float:
    """Of all learners: forward 1, backward 2, and 1 again with gradient checkpointing, for each model that is trained.

    That is 6 P or 8 P a token (Kaplan et al. 2020). Where adapters alone train, backward is 1: frozen weights have no
    gradient. The head works on action tokens, and computes its logits again in its own backward pass. Rows without
    credit are counted in full, though their backward pass is spared.
    """
    backward = 1 if learners.adapters else 2
    layers = (1 + backward + learners.checkpointing) * layer_flops(shape, work.tokens, work.rollout_tokens / 2)
    return learners.models * (layers + (2 + backward) * head_flops(shape, work.rollouts * work.actions))


def forward_flops(shape: ModelShape, work: Work) -> float:
    """Of one forward pass over all rollouts: old log-probs, a reference's, or a critic's values.

    These passes are made of the whole step at once, which is dealt to learners evenly by tokens.
    """
    layers = layer_flops(shape, work.tokens, work.rollout_tokens / 2)
    return layers + head_flops(shape, work.rollouts * work.actions)


def slowest_share(learners: int, rollouts: int, updates: int) -> float:
    """How much more than its even share of a mini-batch the learner with most of it has, in the mean; 1 for one.

    A rollout's mini-batch is drawn before rollouts are dealt to learners (calibadv/batching.py), so that a learner's
    number in one is hypergeometric: mean k = rollouts / (learners updates), variance about k (1 - 1/learners)
    (1 - 1/updates). The largest of n normal numbers is in the mean the quantile (n - 0.375) / (n + 0.25) (Blom 1958).
    """
    if learners == 1:
        return 1.0
    mean = rollouts / (learners * updates)
    deviation = math.sqrt(mean * (1 - 1 / learners) * (1 - 1 / updates))
    return 1 + NormalDist().inv_cdf((learners - 0.375) / (learners + 0.25)) * deviation / mean


def micro_batches(work: Work, learners: Learners) -> int:
    """Of the slowest learner in an update, full to the brim."""
    even = work.tokens / (learners.number * learners.updates)
    return math.ceil(even * slowest_share(learners.number, work.rollouts, learners.updates) / learners.token_budget)


def sent_bytes(shape: ModelShape, learners: Learners, micro: int) -> float:
    """Bytes on the bus in an update of `micro` micro-batches, by ZeRO's stage (Rajbhandari et al. 2020, 7).

    M = 4 P (n - 1) / n is what a reduce-scatter or a gathering of fp32 numbers moves; an all-reduce moves 2 M. Stage 0
    sums once: 2 M. Stage 1 sums once and gathers weights: 3 M. Stage 2 sums after each micro-batch: 2 M micro + M. Both
    sum by all-reduce, as DeepSpeed 0.19 does unless told otherwise (`use_multi_rank_bucket_allreduce`). Stage 3 gathers
    weights for forward and backward and scatters gradients: 3 M micro, and M micro for each further forward pass. Where
    adapters alone train, their bytes are left out, and stage 3 gathers the frozen weights.
    """
    n = learners.number
    moved = 4 * learners.models * shape.parameters * (n - 1) / n
    if learners.adapters:
        return (2 + learners.forwards) * micro * moved if learners.zero == 3 else 0.0
    copies = {0: 2, 1: 3, 2: 2 * micro + 1, 3: (3 + learners.forwards) * micro}
    return copies[learners.zero] * moved
