"""What is published: where a policy's weights lie, never the weights. Whoever passes it on needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ray


@dataclass(frozen=True, slots=True)
class SharedCopy:
    """Where one learner keeps a version: the device, and a handle for each chunk."""

    place: str
    device: str  # torch's name in the learner's process
    serial: int
    handles: tuple[bytes, ...]


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
    """One published policy: its chunks, what lies in them, and who else keeps the same chunks."""

    chunks: tuple[ray.ObjectRef, ...]
    manifest: tuple[TensorSpec, ...]
    copies: tuple[SharedCopy, ...] = ()
    one_sided: bool = False  # the chunks are the learner's, read where they lie; else they are in the object store
