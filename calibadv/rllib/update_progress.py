"""A learner says how far its update is, so that whoever waits for it sees it move."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

from calibadv.cluster.coordinator import find_coordinator

EVERY_S = 1.0
Report = Callable[[int, int], object]
"""(micro-batches done, of how many)"""


class UpdateProgress:
    """Counts micro-batches, and reports them at most once in `EVERY_S`."""

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report, self._clock = report, clock
        self._done = self._of = 0
        self._reported_s = float("-inf")

    def begin(self, micro_batches: int) -> None:
        """An update of so many micro-batches begins."""
        self._done, self._of = 0, micro_batches
        self._say()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._clock() - self._reported_s >= EVERY_S:
            self._say()

    def _say(self) -> None:
        self._reported_s = self._clock()
        self._report(self._done, self._of)


def to_coordinator(name: str | None) -> Report:
    """Reports to the run's coordinator, which is found at the first one; to nobody without a name."""
    if name is None:
        return lambda *_: None
    find = cache(find_coordinator)  # what is reported to one that has died meanwhile is lost, and no error
    return lambda done, of: find(name).report_update.remote(done, of)
