"""A learner says on the policy board how far its update is, so that whoever waits for it sees it move."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray

from calibadv.cluster.board import find_board

EVERY_S = 1.0


class UpdateProgress:
    """Counts micro-batches, and tells the board at most once in `EVERY_S`. Without a board it only counts."""

    def __init__(self, board: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = board, clock
        self._board: Any = None
        self.done = self.of = 0
        self._said_s = float("-inf")

    def begin(self, micro_batches: int) -> None:
        """An update of so many micro-batches begins."""
        self.done, self.of = 0, micro_batches
        self._say()

    def step(self) -> None:
        """One more is done."""
        self.done += 1
        if self._clock() - self._said_s >= EVERY_S:
            self._say()

    def _say(self) -> None:
        self._said_s = self._clock()
        if self._board is None and self._name is not None and ray.is_initialized():
            try:
                self._board = find_board(self._name)
            except ValueError:  # a learner by itself
                self._name = None
        if self._board is not None:
            self._board.learned.remote(self.done, self.of)
