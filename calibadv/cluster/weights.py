"""Weights on their way from the learner to the engines: tensors packed into object-store chunks and back.

Chunks are put by the caller, which must outlive the engines' need of them (the learner or the driver): an object that
a pool actor puts dies with that actor. Where a learner keeps a copy on its GPU as well, an engine there reads that one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from calibadv.cluster.device_copy import DeviceCopy, read, within_reach
from calibadv.cluster.packed import PackedWeights, TensorSpec

logger = logging.getLogger(__name__)

DEFAULT_CHUNK_BYTES = 256 * 2**20


def chunk_state(
    named_tensors: Iterable[tuple[str, torch.Tensor]],
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    dtype: torch.dtype | None = None,
    copy: DeviceCopy | None = None,
    *,
    store: bool = True,
) -> PackedWeights:
    """The tensors in the object store, owned by the caller, at most one chunk in memory at a time.

    A tensor is never cut: one larger than `chunk_bytes` is a chunk of its own. `dtype` casts floating-point tensors.
    `copy` keeps the chunks on the GPU as well; `store` False keeps them there alone, for a learner whose weights
    another one stores.
    """
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes must be at least 1, got {chunk_bytes}")
    chunks: list[ray.ObjectRef] = []
    manifest: list[TensorSpec] = []
    parts: list[torch.Tensor] = []
    number = filled = 0

    def close() -> None:
        if store:
            chunks.append(ray.put(np.concatenate([part.cpu().numpy() for part in parts])))
        if copy is not None:
            copy.add(parts)

    if copy is not None:
        copy.begin()
    for name, given in named_tensors:
        kept = dtype if dtype is not None and given.is_floating_point() else given.dtype
        # Copied: a tensor may be there only until the next is asked for.
        tensor = given.detach().to(given.device if copy is not None else "cpu", kept, copy=True).contiguous()
        part = tensor.reshape(-1).view(torch.uint8)
        if parts and filled + part.nbytes > chunk_bytes:
            close()
            parts, number, filled = [], number + 1, 0
        spec = TensorSpec(
            name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), number, filled, part.nbytes
        )
        manifest.append(spec)
        parts.append(part)
        filled += part.nbytes
    if parts:
        close()
    shared = copy.finish() if copy is not None else None
    return PackedWeights(tuple(chunks), tuple(manifest), (shared,) if shared is not None else ())


def fetch(packed: PackedWeights) -> Iterator[tuple[str, torch.Tensor]]:
    """The named tensors again, in their order, one chunk at a time. Runs where the engine is.

    They are on the GPU where a learner keeps a copy on the engine's own, else in main memory. A chunk that cannot be
    read there, for whatever reason, comes from the object store, and so do those after it: one warning says so.
    """
    shared = within_reach(packed.copies)
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
            if shared is None:
                chunk = ray.get(packed.chunks[current])
        yield spec.name, _tensor(spec, chunk)


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
