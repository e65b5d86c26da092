"""The view where stdout is no terminal: log lines of stages and steps, what happens in between, and the end as text."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Self

from rich.console import Console

from calibadv.views.rollout import summary_text
from calibadv.views.summary import NUMBERS, TIME_PARTS, NowFn, RunSummary, clock, time_shares

log = logging.getLogger(__name__)

_QUIET_S = 30.0  # without a line of this view, what happens now is said
_WIDTH = 100


class PlainView:
    """Log lines. What a metric lacks is left out of its line."""

    def __init__(self, total_steps: int, *, quiet_s: float = _QUIET_S) -> None:
        self._total_steps = total_steps
        self._stage: str | None = None
        self._began = 0.0
        self._quiet_s, self._said_s = quiet_s, time.monotonic()
        self._now: NowFn = lambda: None
        self._over = threading.Event()

    def stage(self, name: str, waiting_for: str) -> None:
        if self._stage is not None:
            self.stage_done()
        self._stage, self._began = name, time.monotonic()
        self._say("%s: %s", name, waiting_for)

    def stage_done(self, note: str = "") -> None:
        if self._stage is not None:
            self._say("%s: done in %.1f s%s", self._stage, time.monotonic() - self._began, f" ({note})" if note else "")
        self._stage = None

    def follow(self, now: NowFn) -> None:
        self._now = now

    def keep_output(self, path: Path) -> None:
        """Lines are not drawn over: what others write may stand between them."""

    def step(self, metrics: Mapping[str, float], left_s: float | None = None) -> None:
        self.stage_done()
        numbers = [f"{label} {metrics[key]:{form}}" for label, key, form in NUMBERS if key in metrics]
        shares = time_shares({part: metrics.get(f"time/{part}_s", 0.0) for part in TIME_PARTS})
        if shares:
            numbers.append(", ".join(f"{part} {share:.0%}" for part, share in shares.items()))
        left = [] if left_s is None else [f"{clock(left_s)} left"]
        self._say("step %d/%d  %s", metrics.get("step", 0), self._total_steps, "  ".join([*left, *numbers]))

    def finish(self, summary: RunSummary) -> None:
        self.stage_done()
        page = StringIO()
        Console(file=page, width=_width(), no_color=True, force_terminal=False).print(summary_text(summary))
        self._say("finished\n%s", "\n".join(line.rstrip() for line in page.getvalue().splitlines()))

    def __enter__(self) -> Self:
        threading.Thread(target=self._report_idle, name="plain-view", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._stage is not None and exception[0] is not None:
            log.error("%s: failed after %.1f s", self._stage, time.monotonic() - self._began)
        self._stage = None

    def _say(self, line: str, *values: object) -> None:
        self._said_s = time.monotonic()
        log.info(line, *values)

    def _report_idle(self) -> None:
        while not self._over.wait(max(0.01, self._said_s + self._quiet_s - time.monotonic())):
            if time.monotonic() - self._said_s < self._quiet_s:
                continue
            now, stage = self._now(), self._stage
            if now is not None:
                progress = f": {now.progress}" if now.progress else ""
                self._say("%s, for %s%s", now.name, clock(now.seconds), progress)
            elif stage is not None:
                self._say("%s: for %s", stage, clock(time.monotonic() - self._began))
            else:
                self._said_s = time.monotonic()


def _width() -> int:
    """Of a dumb terminal that a person looks at; else one that files and job logs can be read at."""
    return min(shutil.get_terminal_size().columns, _WIDTH) if sys.stderr.isatty() else _WIDTH
