"""Says what a run waits for, whenever that lasts: a stalled run must not be a silent one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

logger = logging.getLogger(__name__)

Detail = Callable[[], str]
"""What is known of the wait by now. It must come back in a few seconds; what it raises is said in its place."""


@dataclass(slots=True)
class _Wait:
    what: str
    detail: Detail | None
    begun_s: float
    said: int = 0  # times


class StallWatch:
    """A warning after `after_s` of one wait, and each time as long again. Waits may be nested: the innermost is told.

    `clock` gives seconds. With `thread` False nothing looks by itself: `check` does.
    """

    def __init__(self, after_s: float, *, clock: Callable[[], float] = time.monotonic, thread: bool = True) -> None:
        self._after_s, self._clock, self._thread = after_s, clock, thread
        self._waits: list[_Wait] = []
        self._lock = threading.Lock()
        self._started = False

    @contextmanager
    def waiting(self, what: str, detail: Detail | None = None) -> Iterator[None]:
        """The body waits for `what`, e.g. "the rollouts of step 7"."""
        wait = _Wait(what, detail, self._clock())
        with self._lock:
            self._waits.append(wait)
            if self._thread and not self._started:
                self._started = True
                threading.Thread(target=self._look, name="stall-watch", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._waits.remove(wait)

    def check(self) -> None:
        """Says what is due to be said."""
        with self._lock:
            wait = self._waits[-1] if self._waits else None
        if wait is None:
            return
        waited_s = self._clock() - wait.begun_s
        if waited_s < (wait.said + 1) * self._after_s:
            return
        wait.said = int(waited_s // self._after_s)
        logger.warning("for %.0f s the run has waited for %s%s", waited_s, wait.what, _told(wait.detail))

    def _look(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(min(5.0, self._after_s / 4))
            self.check()


def _told(detail: Detail | None) -> str:
    if detail is None:
        return ""
    try:
        return f": {detail()}"
    except Exception as error:  # the part that is asked may be the one that hangs
        return f" (no more can be found out: {type(error).__name__})"
