"""MLflow catches up with a run folder: what was appended to its files is delivered from a thread of its own.

The folder is the truth. Its files are read from a remembered offset, in order; what MLflow does not take is tried again
with growing pauses. However a process ends, the next one goes on where the last one was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from calibadv.json_lines import Tail
from calibadv.tracking.keys import key
from calibadv.tracking.run_files import METRICS, ROLLOUTS

log = logging.getLogger(__name__)

OPERATIONS = "mlflow.jsonl"  # what no other file of the folder says: parameters, tags, artifacts, how the run ended
WRITTEN_MS = "written_ms"  # of a line of rollouts.jsonl: when, Unix time; an earlier release's has none
_EVERY_S = 0.5
_FILES_B_A_S = 20e6  # bytes a second that a store is given for files: a slow network disk

Operation = dict[str, Any]


class Rejected(Exception):
    """The store refuses this operation for good: it is dropped with a warning, not tried again."""


class Store(Protocol):
    """Where operations go."""

    def connect(self) -> Mapping[str, int]:
        """Finds or makes the run; how many bytes of each file it has: none of a new run. Raises while out of reach."""

    def deliver(self, operation: Operation) -> None:
        """Carries out one operation unless that was done before. Raises `Rejected` for what would fail for ever."""

    def remember(self, offsets: Mapping[str, int]) -> None:
        """Keeps how far the files were delivered."""


class Follower:
    """Delivers until `close`. Nothing waits for it."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        offsets: Mapping[str, int],
        *,
        every_s: float = _EVERY_S,
        first_pause_s: float = 5.0,
        longest_pause_s: float = 300.0,
    ) -> None:
        self._folder, self._store, self._every_s = folder, store, every_s
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._pause_s = first_pause_s
        self._tails = {name: Tail(folder / name, offsets.get(name, 0)) for name in _SOURCES}
        self._connected = self._failing = False
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> int:
        """Delivers what can be delivered in time; the number of lines that are still owed.

        That is within `timeout_s`, and a second for every 20 MB of the files that are owed: a model is one operation.
        """
        files_s = self._bytes_owed() / _FILES_B_A_S
        if files_s > timeout_s:
            log.info("MLflow is given at most %.0f s more to take the run's files", timeout_s + files_s)
        self._closing.set()
        try:
            self._thread.join(timeout_s + files_s)
        finally:  # also when a second Ctrl-C ends the waiting
            self._abandoned.set()
        return sum(len(list(Tail(tail.path, tail.offset).added())) for tail in self._tails.values())

    def _bytes_owed(self) -> int:
        operations = Tail(self._folder / OPERATIONS, self._tails[OPERATIONS].offset)
        return sum(_bytes_below(self._folder / str(line["path"])) for line, _ in operations.added() if "path" in line)

    def _work(self) -> None:
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # before the files are read: what was appended until then is delivered
            pause_s = self._every_s if self._caught_up() else self._pause_s
            if closing:
                return
            self._closing.wait(pause_s)

    def _caught_up(self) -> bool:
        try:
            self._catch_up()
        except Exception as error:
            if not self._failing:
                self._pause_s = self._first_pause_s
                log.warning("%s; training goes on: MLflow catches up later with what is in %s", error, self._folder)
            else:
                self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            self._failing = True
            return False
        if self._failing and not self._abandoned.is_set():
            log.warning("MLflow answers again and has caught up with %s", self._folder)
        self._failing = False
        return True

    def _catch_up(self) -> None:
        if not self._connected:
            offsets = self._store.connect()
            for name, tail in self._tails.items():
                tail.offset = offsets.get(name, 0)
            self._connected = True
        known = _size(self._folder / OPERATIONS)  # what these refer to, say a step's metrics, is in the other files
        for name, tail in self._tails.items():
            for line, end in tail.added():
                if name == OPERATIONS and end > known:
                    break  # the next time, after what was written before it
                if self._abandoned.is_set():
                    return
                try:
                    self._store.deliver({"time_ms": time.time_ns() // 1_000_000, **_SOURCES[name](line)})
                except (Rejected, KeyError, TypeError) as error:  # the last two: a line that is none of ours
                    log.warning("dropped a line of %s (%s): %s", tail.path, line.get("op", "no operation"), error)
                if self._abandoned.is_set():
                    return  # the folder may have another follower by now, which asks the store what it has
                tail.offset = end
                self._store.remember({name: tail.offset for name, tail in self._tails.items()})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _bytes_below(path: Path) -> int:
    """Bytes of a file, or of a folder's; 0 of what is no longer there."""
    return sum(_size(file) for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _metrics(line: Mapping[str, Any]) -> Operation:
    values = {key(name): value for name, value in line.items() if name != "step"}
    return {"op": "metrics", "step": int(line["step"]), "values": values}


def _trace(line: Mapping[str, Any]) -> Operation:
    return {"op": "trace", "record": line, **({"time_ms": line[WRITTEN_MS]} if WRITTEN_MS in line else {})}


_SOURCES: dict[str, Callable[[Mapping[str, Any]], Operation]] = {
    METRICS: _metrics,
    ROLLOUTS: _trace,
    OPERATIONS: dict,  # last: a run ends when all else is there
}
"""The files that are followed, and what a line of each asks for."""
