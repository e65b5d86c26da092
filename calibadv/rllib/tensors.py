"""A packed micro-batch as tensors on the learner's device."""

from __future__ import annotations

import torch
from torch import Tensor

from calibadv.batching import MicroBatch

_FIELDS = ("ids_BT", "action_BT", "sampler_logprobs_N", "old_logprobs_N", "advantages_N")


def to_tensors(micro: MicroBatch, device: torch.device) -> dict[str, Tensor]:
    """Every array of the micro-batch by its field name; dtypes are kept."""
    return {name: torch.from_numpy(getattr(micro, name)).to(device) for name in _FIELDS}
