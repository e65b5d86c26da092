"""A folder's lock: one live process writes it, and a lock that a dead one left is told from a held one.

On one machine the operating system answers: it drops a process's lock however that process ends. Between machines a
shared file system may not pass locks on, so that the owner also says every `BEAT_S` that it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)

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
    """Holds `path`, a file in the folder, until `close` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Takes the lock. `FolderLocked` if another process has it, naming that process."""
        self._path = path
        self._file = _locked(path)
        try:
            _check_other_machine(path, _owner(self._file))
            owner = Owner(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))
            self._file.truncate(0)
            self._file.write(json.dumps(asdict(owner)))
            self._file.flush()
        except BaseException:
            self._file.close()
            raise
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="folder-lock").start()

    def close(self) -> None:
        """Gives the lock back."""
        if not self._closed.is_set():
            self._closed.set()
            self._file.truncate(0)  # nobody's: the next one need not ask who that was
            self._file.close()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _locked(path: Path) -> TextIO:
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(file) or "another process"
        file.close()
        raise FolderLocked(
            f"{path.parent} is being written by {owner}: two runs cannot share a folder, choose another with "
            "--run.name or end that process"
        ) from None
    except OSError as error:
        file.close()
        raise FolderLocked(f"{path.parent} cannot be locked ({error}): put it on a file system with locks") from error
    return file


def _check_other_machine(path: Path, owner: Owner | None) -> None:
    """Whether a lock that is free here, but names an owner elsewhere, is given up."""
    if owner is None:
        return
    if owner.host == socket.gethostname():
        log.info("%s was left by %s, which has ended", path.parent, owner)
        return
    silent_s = _silent_s(path)
    if silent_s < STALE_S:
        raise FolderLocked(
            f"{path.parent} is being written by {owner}, which was alive {silent_s:.0f} s ago: two runs cannot share a "
            f"folder; if that machine is gone, try again in {STALE_S - silent_s:.0f} s"
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


def _owner(file: TextIO) -> Owner | None:
    file.seek(0)
    try:
        values = json.loads(file.read())
        return Owner(int(values["pid"]), str(values["host"]), str(values["started"]))
    except (ValueError, KeyError, TypeError):
        return None  # empty, or of an older release
