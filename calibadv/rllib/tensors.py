"""A packed micro-batch as tensors on the learner's device."""

from __future__ import annotations

import torch
from torch import Tensor

from calibadv.batching import MicroBatch


def to_tensors(micro: MicroBatch, device: torch.device) -> dict[str, Tensor]:
    """Every array of the micro-batch by its field name; dtypes are kept."""
    arrays = {"ids_BT": micro.ids_BT, "action_BT": micro.action_BT, "row_N": micro.row_N, **micro.tokens}
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
