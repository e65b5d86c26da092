"""Ctrl-C and SIGTERM, let in at once or, while something must not be cut, at its end."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)


class Preempted(KeyboardInterrupt):
    """SIGTERM came: the machine is about to go away, or someone ended the run politely."""


class Interruption:
    """One run's handling of both signals. A second one does not wait.

    Outside the main thread (a Tune trial) no signal arrives, and nothing is installed.
    """

    def __init__(self) -> None:
        self.forced = False  # a second signal came while the first one waited: save nothing more
        self._deferring = 0
        self._waiting: KeyboardInterrupt | None = None

    @contextmanager
    def installed(self) -> Iterator[Interruption]:
        """Handles SIGINT and SIGTERM while the body runs: they raise KeyboardInterrupt and `Preempted` in it."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._arrived) for number in signals]
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # kept from arriving by `restart.start_again`
            yield self
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Keeps a signal waiting until the end of the body, where it is raised unless the body failed."""
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1
        if not self._deferring:
            self.raise_waiting()

    def raise_waiting(self) -> None:
        """Raises a signal that still waits because what it waited for has failed."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            raise waiting

    def _arrived(self, number: int, _: FrameType | None) -> None:
        error = Preempted() if number == signal.SIGTERM else KeyboardInterrupt()
        if self._deferring and self._waiting is None:
            self._waiting = error
            log.warning(
                "%s: it ends after the update or checkpoint under way; again, and it ends at once, without that one",
                signal.Signals(number).name,
            )
            return
        self.forced = bool(self._deferring)
        self._waiting = None
        raise error
