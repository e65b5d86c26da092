"""Seconds that a run has still to go, from the steps and evaluations that it has made."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

_RECENT = 5  # steps: rollouts grow longer or shorter as the policy learns


@dataclass
class TimeLeft:
    """`evaluations`: of each version that is evaluated, how many questions are asked at most (None: all)."""

    steps: int
    evaluations: Mapping[int, int | None]
    _step_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _question_s: float = 0.0  # of an evaluation
    _questions: int = 0  # that there are

    def evaluated(self, questions: int, seconds: float) -> None:
        """An evaluation has ended."""
        self._questions = max(self._questions, questions)
        self._question_s = seconds / max(questions, 1)

    def stepped(self, seconds: float) -> None:
        """A step has ended, which took so long without its evaluation."""
        self._step_s.append(seconds)

    def seconds_from(self, version: int) -> float | None:
        """Seconds from the end of step `version`, its evaluation made; None before the first step of this process."""
        if not self._step_s:
            return None
        asked = sum(
            self._questions if most is None else min(most, self._questions)
            for evaluated, most in self.evaluations.items()
            if evaluated > version
        )
        return fmean(self._step_s) * (self.steps - version) + self._question_s * asked
