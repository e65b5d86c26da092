"""Weights on their way from the learner to the engines: tensors packed into chunks and back.

Chunks are put by the caller, which must outlive the engines' need of them (the learner or the driver): an object that
a pool actor puts dies with that actor. They go to the object store, or stay where the learner has them
(`one_sided.py`). Where a learner keeps a copy on its GPU as well, an engine there reads that one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from calibadv.cluster.device_copy import DeviceCopy, read, within_reach
from calibadv.cluster.one_sided import pull
from calibadv.cluster.packed import PackedWeights, TensorSpec

logger = logging.getLogger(__name__)

DEFAULT_CHUNK_BYTES = 256 * 2**20


class ChunkStore(Protocol):
    """Where the chunks of one version are put, one after the other."""

    one_sided: bool  # chunks stay where the weights lie, and are made of their parts when they are whole

    def add(self, part: torch.Tensor) -> None:
        """The next bytes of the chunk."""

    def close(self) -> ray.ObjectRef:
        """The chunk is whole; what is added from now on is of the next."""


def put_chunk(chunk: torch.Tensor, source: torch.device) -> ray.ObjectRef:
    """The bytes in the object store, once what was copied from `source` is there."""
    if source.type == "cuda":
        torch.cuda.synchronize(source)
    return ray.put(chunk.numpy())


class StoredChunks:
    """Chunks in the object store, at most one in memory at a time: each is written over the one before.

    `chunk_bytes`: of a chunk of several parts at most; a longer one is one part.
    """

    one_sided = False

    def __init__(
        self, chunk_bytes: int, put: Callable[[torch.Tensor, torch.device], ray.ObjectRef] = put_chunk
    ) -> None:
        self._chunk_bytes, self._put = chunk_bytes, put
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._source, self._filled = torch.device("cpu"), 0

    def add(self, part: torch.Tensor) -> None:
        self._source, end = part.device, self._filled + part.nbytes
        if len(self._buffer) < end:
            assert self._filled == 0, "what is added fits in the chunk"
            self._buffer = _buffer(max(self._chunk_bytes, part.nbytes), self._source)
        self._buffer[self._filled : end].copy_(part, non_blocking=True)
        self._filled = end

    def close(self) -> ray.ObjectRef:
        filled, self._filled = self._filled, 0
        return self._put(self._buffer[:filled], self._source)


def chunk_state(
    named_tensors: Iterable[tuple[str, torch.Tensor]],
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    dtype: torch.dtype | None = None,
    copy: DeviceCopy | None = None,
    store: Callable[[int], ChunkStore] | None = StoredChunks,
) -> PackedWeights:
    """The tensors in chunks, owned by the caller.

    A tensor is never cut: one larger than `chunk_bytes` is a chunk of its own. `dtype` casts floating-point tensors.
    `copy` keeps the chunks on the GPU as well. `store` makes what takes chunks of so many bytes; None leaves them to
    `copy` alone, for a learner whose weights another one stores.
    """
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes must be at least 1, got {chunk_bytes}")
    stored = store(chunk_bytes) if store is not None else None
    one_sided = stored is not None and stored.one_sided
    chunks: list[ray.ObjectRef] = []
    manifest: list[TensorSpec] = []
    parts: list[torch.Tensor] = []  # of the chunk, for `copy`
    number = filled = 0

    def close() -> None:
        if stored is not None:
            chunks.append(stored.close())
        if copy is not None:
            copy.add(parts)

    if copy is not None:
        copy.begin()
    for name, given in named_tensors:
        kept = dtype if dtype is not None and given.is_floating_point() else given.dtype
        # Cast where it lies: on its way to main memory, one thread of the CPU would cast after all bytes had come.
        # A tensor may be there only until the next is asked for.
        tensor = given.detach().to(given.device, kept, copy=one_sided or copy is not None).contiguous()
        part = tensor.reshape(-1).view(torch.uint8)
        if filled and filled + part.nbytes > chunk_bytes:
            close()
            parts, number, filled = [], number + 1, 0
        if stored is not None:
            stored.add(part)
        if copy is not None:
            parts.append(part)
        spec = TensorSpec(
            name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), number, filled, part.nbytes
        )
        manifest.append(spec)
        filled += part.nbytes
    if manifest:
        close()
    shared = copy.finish() if copy is not None else None
    return PackedWeights(tuple(chunks), tuple(manifest), (shared,) if shared is not None else (), one_sided)


def _buffer(size: int, source: torch.device) -> torch.Tensor:
    """Bytes to be written over: pinned for a GPU, which writes into them by itself.

    Else numpy's, of which only what is written takes memory: where algorithms are to be deterministic, as in a run with
    a seed, torch fills what it makes.
    """
    if source.type == "cuda":
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return torch.from_numpy(np.empty(size, dtype=np.uint8))


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
