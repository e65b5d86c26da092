"""What a run shows of itself: its interface to the terminal, the numbers of a step, and what is told at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from calibadv.tracking.record import RolloutRecord

TIME_PARTS = ("rollout", "learn", "sync", "eval", "other")
"""What a step's seconds go to: metrics `time/<part>_s`."""
NUMBERS = (
    ("reward", "reward/mean", ".3f"),
    ("F1", "reward/f1", ".3f"),
    ("held-out F1", "eval/f1", ".3f"),
    ("entropy", "policy/entropy", ".2f"),
    ("searches", "rollout/searches", ".2f"),
    ("s a step", "time/step_s", ".1f"),
    ("tokens/s", "rollout/tokens_per_s", ",.0f"),
)
"""What is shown of a step: label, metric, format."""


@dataclass(frozen=True, slots=True)
class NextSteps:
    """How to look at a run that has ended."""

    command: str = ""  # that opens its pages, where no server has them
    page: str = ""  # its own in MLflow, or the server's where that is not known


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What the view shows at the end. `before` and `after` are evaluation metrics: f1, em, format, searches."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    steps: int
    seconds: float
    folder: Path
    rollout: RolloutRecord | None = None
    next: NextSteps = NextSteps()


@dataclass(frozen=True, slots=True)
class Activity:
    """What a run does at the moment."""

    name: str  # e.g. "the rollouts of step 7"
    seconds: float  # since it began
    progress: str = ""  # e.g. "12 of 32 questions are in"


NowFn = Callable[[], Activity | None]
"""The activity of this moment, at once; None between two of them."""


class TerminalView(Protocol):
    """A run as seen from the terminal."""

    def stage(self, name: str, waiting_for: str) -> None:
        """A start-up stage begins (the one before has ended); `waiting_for` says what takes the time."""

    def stage_done(self, note: str = "") -> None:
        """The stage has ended; `note` is what came of it."""

    def follow(self, now: NowFn) -> None:
        """From here on `now` knows what the run does, and is asked again and again."""

    def keep_output(self, path: Path) -> None:
        """What others write to the terminal goes to this file, where it would tear the view."""

    def step(self, metrics: Mapping[str, float], left_s: float | None = None) -> None:
        """A training step has ended; `metrics` as logged, with "step", and the seconds that the run has still to go."""

    def finish(self, summary: RunSummary) -> None:
        """The run has ended well."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def time_shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Share of each part in the time spent, parts that took none left out; {} if nothing took time."""
    whole = sum(seconds.values())
    return {part: spent / whole for part, spent in seconds.items() if spent > 0} if whole > 0 else {}


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 2:01:05."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
