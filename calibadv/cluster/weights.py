"""Weights on their way from the learner to the engines: tensors packed into object-store chunks and back.

Chunks are put by the caller, which must outlive the engines' need of them (the learner or the driver): an object that
a pool actor puts dies with that actor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import ray
import torch
from numpy.typing import NDArray

DEFAULT_CHUNK_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Where one tensor lies: `nbytes` from `offset` of chunk `chunk`."""

    name: str
    dtype: str  # torch's name, e.g. bfloat16: numpy has none for it, so that chunks are plain bytes
    shape: tuple[int, ...]
    chunk: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """One published policy: its chunks in the object store, and what lies in them."""

    chunks: tuple[ray.ObjectRef, ...]
    manifest: tuple[TensorSpec, ...]

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(spec.nbytes for spec in self.manifest)


def chunk_state(
    named_tensors: Iterable[tuple[str, torch.Tensor]],
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    dtype: torch.dtype | None = None,
) -> PackedWeights:
    """The tensors in the object store, owned by the caller, at most one chunk in memory at a time.

    A tensor is never cut: one larger than `chunk_bytes` is a chunk of its own. `dtype` casts floating-point tensors.
    """
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes must be at least 1, got {chunk_bytes}")
    chunks: list[ray.ObjectRef] = []
    manifest: list[TensorSpec] = []
    parts: list[NDArray[np.uint8]] = []
    filled = 0
    for name, given in named_tensors:
        kept = dtype if dtype is not None and given.is_floating_point() else given.dtype
        # Copied: a tensor may be there only until the next is asked for.
        tensor = given.detach().to("cpu", kept, copy=True).contiguous()
        part = tensor.reshape(-1).view(torch.uint8).numpy()
        if parts and filled + part.nbytes > chunk_bytes:
            chunks.append(ray.put(np.concatenate(parts)))
            parts, filled = [], 0
        spec = TensorSpec(
            name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), len(chunks), filled, part.nbytes
        )
        manifest.append(spec)
        parts.append(part)
        filled += part.nbytes
    if parts:
        chunks.append(ray.put(np.concatenate(parts)))
    return PackedWeights(tuple(chunks), tuple(manifest))


def fetch(packed: PackedWeights) -> Iterator[tuple[str, torch.Tensor]]:
    """The named tensors again, in their order, one chunk at a time. Runs where the engine is."""
    current, chunk = -1, np.empty(0, dtype=np.uint8)
    for spec in packed.manifest:
        if spec.chunk != current:
            current, chunk = spec.chunk, ray.get(packed.chunks[spec.chunk])
        tensor = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype))
        # Copied: the store's memory is read-only and its offsets need not suit the dtype.
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = chunk[spec.offset : spec.offset + spec.nbytes]
        yield spec.name, tensor
