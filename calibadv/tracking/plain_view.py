"""The view where stdout is no terminal: one log line a stage and a step, and the end as plain text."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from io import StringIO
from typing import Self

from rich.console import Console

from calibadv.tracking.rollout_text import summary_text
from calibadv.tracking.view import TIME_PARTS, RunSummary, time_shares

log = logging.getLogger(__name__)

_NUMBERS = (
    ("reward", "reward/mean", ".3f"),
    ("F1", "reward/f1", ".3f"),
    ("held-out F1", "eval/f1", ".3f"),
    ("entropy", "policy/entropy", ".2f"),
    ("searches", "rollout/searches", ".2f"),
    ("tokens/s", "rollout/tokens_per_s", ".0f"),
)


class PlainView:
    """Log lines. What a metric lacks is left out of its line."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._stage: str | None = None
        self._began = 0.0

    def stage(self, name: str, waiting_for: str) -> None:
        if self._stage is not None:
            self.stage_done()
        self._stage, self._began = name, time.monotonic()
        log.info("%s: %s", name, waiting_for)

    def stage_done(self, note: str = "") -> None:
        if self._stage is not None:
            log.info("%s: done in %.1f s%s", self._stage, time.monotonic() - self._began, f" ({note})" if note else "")
        self._stage = None

    def step(self, metrics: Mapping[str, float]) -> None:
        self.stage_done()
        numbers = [f"{label} {metrics[key]:{form}}" for label, key, form in _NUMBERS if key in metrics]
        shares = time_shares({part: metrics.get(f"time/{part}_s", 0.0) for part in TIME_PARTS})
        if shares:
            numbers.append(", ".join(f"{part} {share:.0%}" for part, share in shares.items()))
        log.info("step %d/%d  %s", metrics.get("step", 0), self._total_steps, "  ".join(numbers))

    def finish(self, summary: RunSummary) -> None:
        self.stage_done()
        page = StringIO()
        Console(file=page, width=100, no_color=True, force_terminal=False).print(summary_text(summary))
        log.info("finished\n%s", "\n".join(line.rstrip() for line in page.getvalue().splitlines()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._stage is not None and exception[0] is not None:
            log.error("%s: failed after %.1f s", self._stage, time.monotonic() - self._began)
        self._stage = None
