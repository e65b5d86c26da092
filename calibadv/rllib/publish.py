"""Publishing: the learner's weights go to the run's coordinator, from which every engine pulls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import ray
import torch
from torch import Tensor

from calibadv.cluster.chunks import ChunkStore, StoredChunks, chunk_state
from calibadv.cluster.coordinator import find_coordinator
from calibadv.cluster.device_copy import DeviceCopy
from calibadv.cluster.one_sided import OneSidedChunks
from calibadv.cluster.packed import PackedWeights
from calibadv.config import Config
from calibadv.rllib.learner_group import PolicyLearnerGroup


def publish_weights(learners: PolicyLearnerGroup, coordinator: str, version: int, dtype: torch.dtype) -> None:
    """Puts the weights as `dtype` where engines get them, and announces `version`.

    Rank 0 owns the chunks, so that they live as long as the learner; the driver only passes references on. Where
    learners and engines share GPUs, every learner keeps the same chunks for the engine beside it.
    """
    packed = with_copies(learners.call_all(lambda learner: learner.pack_weights(dtype)))
    ray.get(find_coordinator(coordinator).publish.remote(version, packed))


def copy_of_learner(config: Config, device: torch.device) -> DeviceCopy | None:
    """Where a learner on `device` keeps published weights for an engine there; None: the object store is all."""
    return DeviceCopy(device) if shares_memory(config, device) else None


def store_of_learner(config: Config) -> Callable[[int], ChunkStore]:
    """What takes the chunks of published weights: the object store, or by `rollout.weight_transfer` the learner."""
    return (lambda _: OneSidedChunks()) if config.rollout.reads_learner_memory else StoredChunks


def shares_memory(config: Config, device: torch.device) -> bool:
    """Whether an engine reads published weights from the memory of the learner's `device`.

    By `rollout.weight_transfer`: "auto" shares memory where engine and learner are on one GPU. Elsewhere an engine does
    not see the learner's GPU at all, for Ray shows each process its own.
    """
    return config.rollout.reads_learner_gpu and device.type == "cuda"


def pack_on_ranks(
    rank: int,
    named_weights: Iterator[tuple[str, Tensor]],
    dtype: torch.dtype,
    copy: DeviceCopy | None,
    store: Callable[[int], ChunkStore] = StoredChunks,
) -> PackedWeights | None:
    """Rank 0's weights in `store`; on the others what they keep in `copy`, None where that is nothing.

    Collective: every rank runs through all weights, an error of its own notwithstanding.
    """
    try:
        if rank == 0 or copy is not None:
            return chunk_state(named_weights, dtype=dtype, copy=copy, store=store if rank == 0 else None)
        return None
    finally:
        for _ in named_weights:
            pass


def with_copies(packed: Sequence[PackedWeights | None]) -> PackedWeights:
    """Rank 0's weights with the copies that any rank keeps: all cut the same weights into the same chunks."""
    stored = packed[0]
    assert stored is not None
    kept = [weights for weights in packed if weights is not None and weights.manifest == stored.manifest]
    return replace(stored, copies=tuple(copy for weights in kept for copy in weights.copies))
