"""An event loop whose waiting is simulated: its time is this process's CPU seconds, and what it would have slept.

While something works (an engine's thread) the loop waits for it as ever; with nothing to do but a timer, the clock is
put forward to that. A simulated tool's latency so adds to measured CPU seconds, whatever else runs on the machine.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

POLL_S = 0.002  # how long one look for the engine's answer lasts, real


class SimulatedClock(asyncio.SelectorEventLoop):
    """`time()` is the process's CPU seconds plus those that were skipped; `working`: what is under way elsewhere."""

    def __init__(self) -> None:
        super().__init__(selector := _Skipping())
        self._skipping = selector
        self.working = 0
        selector.loop = self

    def time(self) -> float:
        """In seconds."""
        return time.process_time() + self._skipping.skipped_s


class _Skipping(selectors.DefaultSelector):
    loop: SimulatedClock
    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready. Where nothing works, nothing but a timer can be: the wait for it is skipped."""
        if timeout is None or timeout <= 0:
            return list(super().select(timeout))
        if self.loop.working:  # a timer of CPU time may come before the answer does
            return list(super().select(min(timeout, POLL_S)))
        ready = list(super().select(0))
        if not ready:
            self.skipped_s += timeout
        return ready


def simulated(main: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, run in such a loop."""
    with asyncio.Runner(loop_factory=SimulatedClock) as runner:
        return runner.run(main)
