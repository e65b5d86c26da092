"""Weights on their way into an engine: a publication's chunks as tensors again.

Chunks come from the object store, or are read where the learner has them (`one_sided.py`). Where a learner keeps a copy
on its GPU as well, an engine there reads that one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from calibadv.cluster.device_copy import read, within_reach
from calibadv.cluster.one_sided import pull
from calibadv.cluster.packed import PackedWeights, TensorSpec

logger = logging.getLogger(__name__)


def fetch(packed: PackedWeights) -> Iterator[tuple[str, torch.Tensor]]:
    """The named tensors again, in their order, one chunk at a time. Runs where the engine is.

    They are on the GPU where a learner keeps a copy on the engine's own, or lets it read its chunks, else in main
    memory. A chunk of a copy that cannot be read, for whatever reason, comes from where the chunks are put, and so do
    those after it: one warning says so.
    """
    shared = within_reach(packed.copies)
    get = pull if packed.one_sided else ray.get
    if shared is None and not packed.one_sided:
        _begin_to_pull(packed.chunks)
    current = -1
    chunk: torch.Tensor | NDArray[np.uint8]
    for spec in packed.manifest:
        if spec.chunk != current:
            current = spec.chunk
            if shared is not None:
                try:
                    chunk = read(shared, current)
                except Exception as error:
                    logger.warning("weights come through the object store, not from %s: %s", shared.place, error)
                    shared = None
                    _begin_to_pull(packed.chunks[current:])
            if shared is None:
                chunk = get(packed.chunks[current])
        yield spec.name, _tensor(spec, chunk)


def _begin_to_pull(chunks: Sequence[ray.ObjectRef]) -> None:
    """Another node's chunks come from now on, all of them while the first is read."""
    if chunks:
        ray.wait(list(chunks), num_returns=len(chunks), timeout=0, fetch_local=True)


def _tensor(spec: TensorSpec, chunk: torch.Tensor | NDArray[np.uint8]) -> torch.Tensor:
    """A copy: the store's memory is read-only, and offsets need not suit the dtype."""
    device = chunk.device if isinstance(chunk, torch.Tensor) else "cpu"
    tensor = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device=device)
    flat, part = tensor.reshape(-1).view(torch.uint8), chunk[spec.offset : spec.offset + spec.nbytes]
    if isinstance(part, torch.Tensor):
        flat.copy_(part)
    else:
        flat.numpy()[:] = part
    return tensor
