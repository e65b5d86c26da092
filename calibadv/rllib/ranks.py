"""What learners agree on and make together, without a word where there is one learner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

Part = TypeVar("Part")
Whole = TypeVar("Whole")


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


def most_of_ranks(values: Sequence[int], device: torch.device) -> list[int]:
    """The largest of each value over all ranks. Collective: every rank must call it."""
    if not several_ranks():
        return list(values)
    largest = torch.tensor(values, dtype=torch.int64, device=device)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return [int(value) for value in largest]


def on_rank_zero(rank: int, parts: Iterator[Part], make: Callable[[Iterator[Part]], Whole]) -> Whole | None:
    """What rank 0 makes of parts that all ranks bring about together; None elsewhere. Collective.

    Every rank runs through all parts: an error of rank 0 is raised when the others no longer wait for it.
    """
    try:
        return make(parts) if rank == 0 else None
    finally:
        for _ in parts:
            pass


def sum_gradients(params: Sequence[Tensor]) -> None:
    """Gradients summed over all ranks, in place; a parameter without one counts as zero. Collective."""
    for param in params:
        if param.grad is None:  # no row of this rank had credit
            param.grad = torch.zeros_like(param)
        if several_ranks():
            distributed.all_reduce(param.grad)
