"""A background thread that delivers operations to a store which may be slow, dead or back later; nothing ever waits.

Operations are JSON objects. They wait in a bounded queue; what the store does not take, and what the queue has no room
for, goes to a spool file, is tried again with growing pauses and once more on close. What is left stays in the spool.
An operation may be delivered twice (a crash between delivery and the spool's rewrite): operations must be idempotent.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibadv.json_lines import json_line
from calibadv.tracking.run_folder import read_json_lines

log = logging.getLogger(__name__)

Operation = dict[str, Any]


class Rejected(Exception):
    """The store refuses this operation for good: it is dropped with a warning, not tried again."""


class Outbox:
    """Delivers operations in order, one at a time, from its own thread."""

    def __init__(
        self,
        deliver: Callable[[Operation], None],
        spool: Path,
        *,
        capacity: int = 2000,
        first_pause_s: float = 5.0,
        longest_pause_s: float = 300.0,
    ) -> None:
        self._deliver = deliver
        self._spool = spool
        self._capacity = capacity
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._pause_s = first_pause_s
        self._queue: deque[Operation] = deque()
        self._spooled = len(read_json_lines(spool))  # of an earlier attempt of this run
        self._retry_at = 0.0
        self._lost = 0  # operations that neither the store nor the spool took
        self._warned = self._closing = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Hand over an operation; returns at once. After `close` it goes to the spool."""
        with self._changed:
            if len(self._queue) < self._capacity and not self._closing:
                self._queue.append(operation)
                self._changed.notify()
            else:
                self._append(operation)

    def close(self, timeout_s: float = 60.0) -> int:
        """Deliver what can be delivered within `timeout_s`; the number of operations left in the spool."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        try:
            self._thread.join(timeout_s)
        finally:  # also when a second Ctrl-C ends the waiting
            with self._changed:
                if self._thread.is_alive():
                    # The operation under way is still the first in the queue, so it is kept as well.
                    while self._queue:
                        self._append(self._queue.popleft())
                    self._abandoned = True
        return self._spooled

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._queue or self._closing or self._retry_is_due()):
                    self._changed.wait(max(self._retry_at - time.monotonic(), 0.05) if self._spooled else None)
                if self._abandoned:
                    return
                operation = self._queue[0] if self._queue else None
                closing = self._closing
            if operation is None:
                self._flush()
                if closing:
                    return
                continue
            self._handle(operation)
            with self._changed:
                if self._queue and self._queue[0] is operation:
                    self._queue.popleft()

    def _handle(self, operation: Operation) -> None:
        in_turn = not self._spooled or (self._retry_is_due() and self._flush())
        if not (in_turn and self._try(operation)):
            with self._changed:
                if not self._abandoned:
                    self._append(operation)

    def _try(self, operation: Operation) -> bool:
        try:
            self._deliver(operation)
        except Rejected as error:
            log.warning("dropped %s: %s", operation.get("op"), error)
        except Exception as error:
            self._failed(error)
            return False
        self._pause_s = self._first_pause_s
        return True

    def _failed(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
        if not self._warned:
            self._warned = True
            log.warning("%s; training goes on, what is logged waits in %s and is tried again", error, self._spool)

    def _retry_is_due(self) -> bool:
        return self._spooled > 0 and time.monotonic() >= self._retry_at

    def _flush(self) -> bool:
        """Deliver the spool from its start; True when nothing is left of it."""
        with self._changed:
            waiting = read_json_lines(self._spool)
        done = 0
        while done < len(waiting) and self._try(waiting[done]):
            done += 1
        with self._changed:
            left = read_json_lines(self._spool)[done:]  # more may have been appended meanwhile
            self._spooled = len(left)
            if left:
                draft = self._spool.with_suffix(".tmp")
                with contextlib.suppress(OSError):  # then it is delivered twice, which does no harm
                    draft.write_text("".join(map(json_line, left)), encoding="utf-8")
                    draft.replace(self._spool)
            else:
                self._spool.unlink(missing_ok=True)
        if not left and waiting:
            log.info("delivered %d spooled operations", done)
            self._warned = False
        return not left

    def _append(self, operation: Operation) -> None:
        try:
            with self._spool.open("a", encoding="utf-8") as file:
                file.write(json_line(operation))
        except OSError as error:
            if not self._lost:
                log.warning(
                    "%s cannot be written (%s): what MLflow does not take meanwhile is lost", self._spool, error
                )
            self._lost += 1
            return
        self._spooled += 1
