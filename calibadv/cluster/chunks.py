"""Weights on their way out of the learner: tensors packed into chunks, which are put where engines get them.

Chunks are put by the caller, which must outlive the engines' need of them (the learner or the driver): an object that
a pool actor puts dies with that actor. They go to the object store, or stay where the learner has them
(`one_sided.py`); a learner may keep a copy on its GPU as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from calibadv.cluster.device_copy import DeviceCopy
from calibadv.cluster.packed import PackedWeights, TensorSpec

if TYPE_CHECKING:  # scripts/gpu_check.py packs where there is none
    import ray

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
    import ray

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
        del tensor, part  # of weights that learners share: views would keep them while the next layer is gathered
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
