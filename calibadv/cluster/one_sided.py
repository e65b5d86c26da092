"""Published weights that stay on the learner's device, from which engines of any node read them: Ray's transport NIXL.

The reader copies by itself (RDMA, or what UCX finds), so that an engine that dies half-way breaks nothing, and no group
has to be built anew. A version's chunks are held until the coordinator has the next one and no engine reads them: as a
rule two versions, while one is published. NIXL polls with a thread of its own, by which every such process uses a core
whether weights move or not. Ray's transport is alpha, and whoever is given a chunk's reference, the coordinator too,
keeps a record of it for good: half a kilobyte, and more the more chunks there are. Tested between processes of one
machine, in main memory; on a GPU and between nodes it is untested.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import ray
import torch
from ray.exceptions import ObjectFetchTimedOutError, RayDirectTransportError
from ray.experimental import set_target_device_for_ref

from calibadv.rollout.protocols import EngineDied

TRANSPORT = "nixl"
os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")  # else two lines of each process on the terminal


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
        chunk = self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)
        self._parts = []
        return self.put(chunk)

    def put(self, chunk: torch.Tensor) -> ray.ObjectRef:
        """The chunk, known to Ray, which waits until the device has written it."""
        return ray.put(chunk, _tensor_transport=TRANSPORT)


def read_chunk(ref: ray.ObjectRef) -> torch.Tensor:
    """By Ray, which may raise its own errors."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()  # what is read into may be memory that a kernel under way still uses
    else:
        set_target_device_for_ref(ref, "cpu")
    chunk: torch.Tensor = ray.get(ref)
    return chunk


def pull(ref: ray.ObjectRef, read: Callable[[ray.ObjectRef], torch.Tensor] = read_chunk) -> torch.Tensor:
    """A chunk on this process's GPU, where it uses one, else in main memory.

    EngineDied where it cannot be read, for another engine may; Ray's own error where the learner is gone.
    """
    try:
        return read(ref)
    except (RayDirectTransportError, ObjectFetchTimedOutError) as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]  # last NIXL's, after a traceback
        raise EngineDied(f"new weights could not be read from the learner: {said[-1]}") from error
