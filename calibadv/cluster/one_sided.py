"""Published weights that stay on the learner's device, from which engines of any node read them: Ray's transport NIXL.

The reader copies by itself (RDMA, or what UCX finds), so that an engine that dies half-way breaks nothing, and no group
has to be built anew. A version's chunks are held until the coordinator has the next one and no engine reads them: two
versions, while one is published. NIXL polls with a thread of its own, by which every such process uses a core whether
weights move or not. Ray's transport is alpha, and a process that reads keeps its record of each chunk for good. Tested
between processes of one machine, in main memory; on a GPU and between nodes it is untested.
"""

from __future__ import annotations

import os

import ray
import torch
from ray.experimental import set_target_device_for_ref

TRANSPORT = "nixl"
os.environ.setdefault("NIXL_LOG_LEVEL", "WARNING")  # else two lines of each process on the terminal


class OneSidedChunks:
    """The chunks of one version, each a tensor of bytes where its weights lie."""

    one_sided = True

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, part: torch.Tensor) -> None:
        """The next bytes of the chunk."""
        self._parts.append(part)

    def close(self) -> ray.ObjectRef:
        """The chunk, as it can be read from now on."""
        chunk, self._parts = torch.cat(self._parts), []
        return self.put(chunk)

    def put(self, chunk: torch.Tensor) -> ray.ObjectRef:
        """The chunk, known to Ray, which waits until the device has written it."""
        return ray.put(chunk, _tensor_transport=TRANSPORT)


def pull(ref: ray.ObjectRef) -> torch.Tensor:
    """A chunk on this process's GPU, where it uses one, else in main memory."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        set_target_device_for_ref(ref, "cpu")
    chunk: torch.Tensor = ray.get(ref)
    return chunk
