"""A folder's lock: one live process writes it, and a lock that a dead one left is told from a held one.

On one machine the operating system answers: it drops a process's lock however that process ends. Between machines a
shared file system may not pass locks on, so that the owner also says every `BEAT_S` that it lives. filelock's own lease
does the same, but takes a process of another container with this host's name for dead, and needs `STALE_S` to refuse.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from calibadv.files import write_text

log = logging.getLogger(__name__)

LOCK, OWNER = ".lock", ".lock.json"  # the operating system's, and who has it
BEAT_S = 20.0
STALE_S = 120.0  # without a sign of life: an owner on another machine is taken for dead


class FolderLocked(ValueError):
    """Another process writes the folder."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds, or held, a lock."""

    pid: int
    host: str
    started: str  # local time

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started}"


class FolderLock:
    """Holds an existing folder until `close` or the end of the process."""

    def __init__(self, folder: Path, remedy: str, *, beat_s: float = BEAT_S) -> None:
        """Takes the lock. `FolderLocked` if another process has it, naming that process and the remedy."""
        self._owner, self._lock = folder / OWNER, FileLock(folder / LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = _read(self._owner) or "another process"
            raise FolderLocked(f"{folder} is being written by {owner}: {remedy}") from None
        except OSError as error:
            raise FolderLocked(f"{folder} cannot be locked ({error}): put it on a file system with locks") from error
        try:
            _check_other_machine(self._owner, remedy)
            owner = Owner(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))
            write_text(self._owner, json.dumps(asdict(owner)))
        except BaseException:
            self._lock.release()
            raise
        self._closed, self._beat_s = threading.Event(), beat_s
        threading.Thread(target=self._beat, daemon=True, name="folder-lock").start()

    def close(self) -> None:
        """Gives the lock back."""
        if not self._closed.is_set():
            self._closed.set()
            self._owner.unlink(missing_ok=True)  # nobody's: the next one need not ask who that was
            self._lock.release()

    def _beat(self) -> None:
        while not self._closed.wait(self._beat_s):
            with contextlib.suppress(OSError):
                os.utime(self._owner)


def _check_other_machine(path: Path, remedy: str) -> None:
    """Whether a lock that is free here, but names an owner elsewhere, is given up."""
    if (owner := _read(path)) is None:
        return
    if owner.host == socket.gethostname():
        log.info("%s was left by %s, which has ended", path.parent, owner)
        return
    silent_s = _silent_s(path)
    if silent_s < STALE_S:
        raise FolderLocked(
            f"{path.parent} is being written by {owner}, which was alive {silent_s:.0f} s ago: {remedy}; if that "
            f"machine is gone, try again in {STALE_S - silent_s:.0f} s"
        )
    log.warning("%s was left by %s, silent for %.0f s: it is taken over", path.parent, owner, silent_s)


def _silent_s(path: Path) -> float:
    """Seconds since the owner's last sign of life, by the file system's own clock: machines' clocks differ."""
    probe = path.with_name(f"{path.name}.{os.getpid()}")
    probe.touch()
    try:
        return max(0.0, probe.stat().st_mtime - path.stat().st_mtime)
    finally:
        probe.unlink(missing_ok=True)


def _read(path: Path) -> Owner | None:
    try:
        values = json.loads(path.read_bytes())
        return Owner(int(values["pid"]), str(values["host"]), str(values["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
