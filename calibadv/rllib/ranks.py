"""What learners agree on: sums over all ranks, without a word where there is one learner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def rank() -> int:
    """This learner's, 0 for the only one."""
    return distributed.get_rank() if several_ranks() else 0


def several_ranks() -> bool:
    """Whether sums need the other learners."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def sum_over_ranks(values: Sequence[float], device: torch.device) -> list[float]:
    """Each value summed over all ranks, in float64. Collective: every rank must call it."""
    if not several_ranks():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return [float(value) for value in total]


def sum_gradients(params: Sequence[Tensor]) -> None:
    """Gradients summed over all ranks, in place; a parameter without one counts as zero. Collective."""
    for param in params:
        if param.grad is None:  # no row of this rank had credit
            param.grad = torch.zeros_like(param)
        if several_ranks():
            distributed.all_reduce(param.grad)
