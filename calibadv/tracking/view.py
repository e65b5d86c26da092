"""What a person sees of a run in the terminal: start-up stages, then progress, then before and after.

`open_view` picks the live view on a terminal and plain log lines elsewhere (a pipe, NO_COLOR, CI); both are used as
context managers and leave the terminal as they found it, also after an exception.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from rich.console import Console

from calibadv.tracking.record import RolloutRecord

TIME_PARTS = ("rollout", "learn", "sync", "eval", "other")
"""What a step's seconds go to: metrics `time/<part>_s`."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What the view shows at the end. `before` and `after` are evaluation metrics: f1, em, format, searches."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    steps: int
    seconds: float
    folder: Path
    rollout: RolloutRecord | None = None
    hints: tuple[str, ...] = field(default=())  # commands to go on with, e.g. how to open MLflow


class TerminalView(Protocol):
    """A run as seen from the terminal."""

    def stage(self, name: str, waiting_for: str) -> None:
        """A start-up stage begins (the one before has ended); `waiting_for` says what takes the time."""

    def stage_done(self, note: str = "") -> None:
        """The stage has ended; `note` is what came of it."""

    def step(self, metrics: Mapping[str, float]) -> None:
        """A training step has ended; `metrics` as logged, with "step"."""

    def finish(self, summary: RunSummary) -> None:
        """The run has ended well."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def open_view(total_steps: int, *, plain: bool | None = None, console: Console | None = None) -> TerminalView:
    """The view that fits the terminal; `plain` forces log lines (True) or the live view (False)."""
    from calibadv.tracking.live_view import LiveView
    from calibadv.tracking.plain_view import PlainView

    console = console or Console()
    if plain is None:
        plain = (
            not console.is_terminal or console.is_dumb_terminal or any(os.environ.get(v) for v in ("NO_COLOR", "CI"))
        )
    return PlainView(total_steps) if plain else LiveView(total_steps, console)


def time_shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Share of each part in the time spent, parts that took none left out; {} if nothing took time."""
    whole = sum(seconds.values())
    return {part: spent / whole for part, spent in seconds.items() if spent > 0} if whole > 0 else {}
