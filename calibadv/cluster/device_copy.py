"""Published weights that stay on the GPU: a learner's copy, which an engine on the same GPU maps and reads.

A handle of torch.multiprocessing (CUDA IPC; for tensors in main memory shared memory, by which the tests go this way)
travels with the chunks in the object store, never in place of them. The engine pulls, and no one waits for it: one that
dies half-way and its successor read the same memory again.

Buffers are made once and live as long as the learner. Torch keeps freed memory for every handle that nobody opened, or
whose reader was killed, so that a buffer a version would fill the GPU. They are therefore written over, and each begins
with a serial number: -1 while it is written, then the version's own. A reader looks at it before and after it copies,
and takes the chunk from the object store if it is another.

The serial and the way through two processes are tested in main memory. On a GPU this is untested.
"""

from __future__ import annotations

import io
import logging
import pickle
import secrets
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import torch

from calibadv.cluster.packed import SharedCopy

logger = logging.getLogger(__name__)

_HEAD = 8  # bytes of the serial number
_WRITING = -1


def handle_of(buffer: torch.Tensor) -> bytes:
    """The handle by which another process of this machine maps the buffer."""
    file = io.BytesIO()
    ForkingPickler(file).dump(buffer)
    return file.getvalue()


class DeviceCopy:
    """A learner's buffers on `device`. One failure, e.g. for want of memory, is said once and ends it for good.

    `handle`: what another process finds a buffer by.
    """

    def __init__(self, device: torch.device, handle: Callable[[torch.Tensor], bytes] = handle_of) -> None:
        # "cuda" has no number, and handles are of one.
        self._device = torch.empty(0, device=device).device
        self._buffers: list[torch.Tensor] = []
        self._handles: list[bytes] = []
        self._handle = handle
        self._chunks = 0
        self._usable = True

    def begin(self) -> None:
        """From here on nothing can be read until `finish`."""
        self._chunks = 0
        for buffer in self._buffers:
            _serial_of(buffer).fill_(_WRITING)
        _synchronise(self._device)

    def add(self, parts: Sequence[torch.Tensor]) -> None:
        """The next chunk: the bytes of `parts`, one after the other."""
        if not self._usable:
            return
        try:
            self._write(torch.cat(list(parts)))
        except (RuntimeError, OSError, pickle.PicklingError) as error:  # out of memory is a RuntimeError
            logger.warning("weights are not shared on %s, but through the object store alone: %s", self._device, error)
            self._usable = False
            self._buffers, self._handles = [], []

    def finish(self) -> SharedCopy | None:
        """What a reader needs; None if the chunks could not be kept."""
        if not self._usable:
            return None
        serial = secrets.randbelow(2**62)
        _synchronise(self._device)
        for buffer in self._buffers[: self._chunks]:
            _serial_of(buffer).fill_(serial)
        _synchronise(self._device)
        return SharedCopy(place(self._device), str(self._device), serial, tuple(self._handles[: self._chunks]))

    def _write(self, chunk: torch.Tensor) -> None:
        if self._chunks == len(self._buffers):
            buffer = torch.empty(_HEAD + len(chunk), dtype=torch.uint8, device=self._device)
            _serial_of(buffer).fill_(_WRITING)
            self._handles.append(self._handle(buffer))
            self._buffers.append(buffer)
        buffer = self._buffers[self._chunks]
        if len(buffer) != _HEAD + len(chunk):
            raise RuntimeError(f"chunk {self._chunks} has {len(chunk)} bytes, and had {len(buffer) - _HEAD} before")
        buffer[_HEAD:].copy_(chunk)
        self._chunks += 1


def place(device: torch.device) -> str:
    """The memory that `device` is, under one name in all processes: a GPU's UUID, or this start of the host."""
    if device.type == "cuda":
        return f"gpu {torch.cuda.get_device_properties(device).uuid}"
    return f"host {Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()}"


def within_reach(copies: Sequence[SharedCopy]) -> SharedCopy | None:
    """The copy that lies in memory which this process sees under the same name as its learner; None if none does."""
    for copy in copies:
        device = torch.device(copy.device)
        visible = device.type == "cpu" or (
            torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
        )
        if visible and place(device) == copy.place:
            return copy
    return None


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def read(copy: SharedCopy, chunk: int, synchronise: Callable[[torch.device], None] = _synchronise) -> torch.Tensor:
    """The bytes of a chunk, uint8, as a copy on the same device. RuntimeError if they are another version's.

    `synchronise` waits until the device has copied.
    """
    buffer: torch.Tensor = pickle.loads(copy.handles[chunk])
    before = int(_serial_of(buffer).item())
    taken = buffer[_HEAD:].clone()
    synchronise(buffer.device)  # before the serial is read again, and before the mapping may end
    if not before == int(_serial_of(buffer).item()) == copy.serial:
        raise RuntimeError(f"chunk {chunk} has been written over by a later version")
    return taken


def _serial_of(buffer: torch.Tensor) -> torch.Tensor:
    return buffer[:_HEAD].view(torch.int64)
