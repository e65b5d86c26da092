"""Weights for another process of this machine: memory that both have mapped, and where in it each tensor lies.

What a vLLM worker in a process of its own would else get pickled, through vLLM's message queue.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from calibadv.cluster.engine import NamedTensors

BLOCK_BYTES = 512 * 2**20  # weights that a worker is handed at once
_ALIGNED = 64  # bytes; a view of any dtype may begin there
_MEMORY = Path("/dev/shm")

Spec = tuple[str, str, list[int], int, int]
"""Name, torch's name of the dtype, shape, first byte and number of bytes: what a message can carry."""


class BlockWriter:
    """Writes tensors into a block that others map, as many at a time as it holds."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes
        self._block = torch.empty(0, dtype=torch.uint8)
        self._path: Path | None = None

    def filled(self, named_tensors: NamedTensors) -> Iterator[tuple[str | None, int, list[Spec]]]:
        """(the block's file where it is a new one, its bytes, what lies in it), until all tensors have lain in it.

        Whoever reads has to be done with a filling before the next is asked for; `forget` once all have mapped it.
        """
        specs: list[Spec] = []
        end = 0
        for name, given in named_tensors:
            flat = given.detach().contiguous().reshape(-1).view(torch.uint8)
            begin = -(-end // _ALIGNED) * _ALIGNED
            if specs and begin + flat.nbytes > len(self._block):
                yield self._new(), len(self._block), specs
                specs, begin = [], 0
            if flat.nbytes > len(self._block):
                self._make(max(flat.nbytes, self._block_bytes))
            self._block[begin : begin + flat.nbytes].copy_(flat)
            dtype = str(given.dtype).removeprefix("torch.")
            specs.append((name, dtype, list(given.shape), begin, flat.nbytes))
            end = begin + flat.nbytes
        if specs:
            yield self._new(), len(self._block), specs

    def forget(self) -> None:
        """Takes the block's file away; whoever has mapped it keeps it."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _new(self) -> str | None:
        return None if self._path is None else str(self._path)

    def _make(self, size: int) -> None:
        """A file of which only what is written takes memory."""
        self.forget()
        roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > size
        handle, path = tempfile.mkstemp(prefix="calibadv-weights-", dir=_MEMORY if roomy else None)
        os.close(handle)
        self._path = Path(path)
        self._block = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)


class BlockReader:
    """The other side: maps a block once, and reads what lies in it."""

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)

    def tensors(self, path: str | None, size: int, specs: Sequence[Spec]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors in place: they change when the block is filled again."""
        if path is not None:
            self._block = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
        for name, dtype, shape, begin, nbytes in specs:
            yield name, self._block[begin : begin + nbytes].view(getattr(torch, dtype)).view(shape)
