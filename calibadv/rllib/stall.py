"""Says what a run waits for and how far that is: always for whoever looks, and as a warning where nothing moves.

A wait that moves is no stall, however long it lasts: a step of a large model takes many minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from calibadv.views.summary import Activity

logger = logging.getLogger(__name__)

# Times as patient: engines that load a large model, an index that is built, a checkpoint that is written or read say
# little of how far it is.
START = 5.0
_LOOK_S = 1.0  # between two looks: how fresh `now` is
_NEVER = object()

Detail = Callable[[], str]
"""What is known of the wait by now. It must come back in a few seconds; what it raises is said in its place."""
Progress = Callable[[], object]
"""How far the wait is: as text for people, and equal to what it was as long as nothing moves. None: not known. It may
take seconds; what it raises counts as nothing moved."""


@dataclass(slots=True)
class _Wait:
    what: str
    detail: Detail | None
    progress: Progress | None
    patience: float | Callable[[], float]
    begun_s: float
    moved_s: float
    seen: object = _NEVER  # progress of the last look
    said: int = 0  # times since something moved


class StallWatch:
    """A warning after `after_s` of one wait in which nothing moves, and each time as long again.

    Waits may be nested: the innermost is told. `clock` gives seconds. With `thread` False nothing looks by itself:
    `check` does.
    """

    def __init__(self, after_s: float, *, clock: Callable[[], float] = time.monotonic, thread: bool = True) -> None:
        self._after_s, self._clock, self._thread = after_s, clock, thread
        self._waits: list[_Wait] = []
        self._lock = threading.Lock()
        self._looking: threading.Event | None = None  # set when the last wait is over: then nobody asks Ray any more

    @contextmanager
    def waiting(
        self,
        what: str,
        detail: Detail | None = None,
        progress: Progress | None = None,
        patience: float | Callable[[], float] = 1.0,
    ) -> Iterator[None]:
        """The body waits for `what`, e.g. "the rollouts of step 7"; it stalls after `patience` times `after_s`.

        A `patience` that is a function is asked when `after_s` has passed; 1 where it cannot be.
        """
        begun_s = self._clock()
        wait = _Wait(what, detail, progress, patience, begun_s, begun_s)
        with self._lock:
            self._waits.append(wait)
            if self._thread and self._looking is None:
                self._looking = threading.Event()
                threading.Thread(target=self._look, args=(self._looking,), name="stall-watch", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._waits.remove(wait)
                if self._waits:  # the end of a wait within another one moved that
                    self._waits[-1].moved_s, self._waits[-1].said = self._clock(), 0
                elif self._looking:
                    self._looking.set()
                    self._looking = None

    def now(self) -> Activity | None:
        """What the run waits for at this moment, as the last look found it; None if it waits for nothing."""
        with self._lock:
            wait = self._waits[-1] if self._waits else None
        if wait is None:
            return None
        progress = "" if wait.seen in (None, _NEVER) else str(wait.seen)
        return Activity(wait.what, self._clock() - wait.begun_s, progress)

    def check(self) -> None:
        """Looks how far the wait is, and says what is due to be said."""
        with self._lock:
            wait = self._waits[-1] if self._waits else None
        if wait is None:
            return
        self._look_at(wait)
        still_s = self._clock() - wait.moved_s
        if still_s < (wait.said + 1) * self._after_s:
            return
        limit_s = _asked(wait.patience) * self._after_s
        if still_s < (wait.said + 1) * limit_s:
            return
        wait.said = int(still_s // limit_s)
        waited_s = self._clock() - wait.begun_s
        still = f", and nothing has moved for {still_s:.0f} s" if waited_s - still_s >= 1 else ""
        logger.warning(
            "for %.0f s the run has waited for %s%s%s", waited_s, wait.what, still, _detail_text(wait.detail)
        )

    def _look_at(self, wait: _Wait) -> None:
        if wait.progress is None:
            return
        try:
            seen = wait.progress()
        except Exception:  # the part that is asked may be the one that hangs
            return
        if wait.seen is not _NEVER and seen != wait.seen:
            wait.moved_s, wait.said = self._clock(), 0
        wait.seen = seen

    def _look(self, over: threading.Event) -> None:
        while not over.wait(min(_LOOK_S, self._after_s / 4)):
            self.check()


def _asked(patience: float | Callable[[], float]) -> float:
    if not callable(patience):
        return patience
    try:
        return patience()
    except Exception:  # the part that is asked may be the one that hangs
        return 1.0


def _detail_text(detail: Detail | None) -> str:
    if detail is None:
        return ""
    try:
        return f": {detail()}"
    except Exception as error:  # the part that is asked may be the one that hangs
        return f" (no more can be found out: {type(error).__name__})"
