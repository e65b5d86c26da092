"""The view on a terminal: start-up stages with a spinner, then a progress bar, the numbers and where time goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from calibadv.tracking.live_logging import live_with_logging
from calibadv.tracking.rollout_text import summary_text
from calibadv.tracking.view import TIME_PARTS, RunSummary, time_shares

_COLORS = {"rollout": "blue", "learn": "yellow", "sync": "green", "eval": "magenta", "other": "bright_black"}
_SPARKS = "▁▂▃▄▅▆▇█"
_SHOWN_STAGES = 8
_BAR = 48  # characters of the time bar
_NUMBERS = (
    ("reward", "reward/mean", ".3f"),
    ("F1", "reward/f1", ".3f"),
    ("held-out F1", "eval/f1", ".3f"),
    ("entropy", "policy/entropy", ".2f"),
    ("searches", "rollout/searches", ".2f"),
    ("tokens/s", "rollout/tokens_per_s", ",.0f"),
)


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    waiting_for: str
    began: float
    seconds: float | None = None  # None while it runs
    note: str = ""
    failed: bool = False


class LiveView:
    """Drawn by rich's Live from a timer thread; every call only replaces what is drawn next."""

    def __init__(self, total_steps: int, console: Console) -> None:
        self._total_steps = total_steps
        self._console = console
        self._stages: list[_Stage] = []
        self._latest: dict[str, float] = {}
        self._f1: list[float] = []
        self._steps_seen = 0
        self._seconds: Counter[str] = Counter()
        self._training_since = 0.0
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=8)
        self._shown = live_with_logging(self._live, console)

    def stage(self, name: str, waiting_for: str) -> None:
        self.stage_done()
        self._stages.append(_Stage(name, waiting_for, time.monotonic()))
        self._live.refresh()

    def stage_done(self, note: str = "") -> None:
        self._end_stage(note, failed=False)

    def step(self, metrics: Mapping[str, float]) -> None:
        self.stage_done()
        if not self._steps_seen:
            self._training_since = time.monotonic()
        self._steps_seen += 1
        self._latest |= metrics
        if "reward/f1" in metrics:
            self._f1.append(metrics["reward/f1"])
        self._seconds.update({part: metrics.get(f"time/{part}_s", 0.0) for part in TIME_PARTS})
        self._live.refresh()

    def finish(self, summary: RunSummary) -> None:
        self.stage_done()
        self._live.stop()
        self._console.print()
        self._console.print(summary_text(summary))

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_stage("", failed=exception[0] is not None)
        self._shown.__exit__(None, None, None)

    def _end_stage(self, note: str, failed: bool) -> None:
        if self._stages and self._stages[-1].seconds is None:
            stage = self._stages[-1]
            self._stages[-1] = replace(stage, seconds=time.monotonic() - stage.began, note=note, failed=failed)

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = [self._stage_table()] if self._stages else []
        if self._latest:
            parts += [Text(), self._progress(), Text(), self._numbers(), Text(), *self._time()]
        return Group(*parts)

    def _stage_table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for stage in self._stages[-_SHOWN_STAGES:]:
            if stage.seconds is None:
                spent, mark = time.monotonic() - stage.began, self._spinner
                table.add_row(mark, Text(stage.name, "bold"), f"{spent:5.1f} s", Text(stage.waiting_for, "dim"))
            else:
                tick = Text("✗", "red") if stage.failed else Text("✓", "green")
                table.add_row(tick, Text(stage.name), f"{stage.seconds:5.1f} s", Text(stage.note, "dim"))
        return table

    def _progress(self) -> Table:
        step = int(self._latest.get("step", 0))
        spent = time.monotonic() - self._training_since
        steps_timed = self._steps_seen - 1  # the clock starts at the end of the first step
        left = f"{_clock(spent / steps_timed * (self._total_steps - step))} left" if steps_timed > 0 else ""
        bar = ProgressBar(total=max(self._total_steps, 1), completed=step, width=_BAR)
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text("step", "bold"), Text(f"{step}/{self._total_steps}"), bar, Text(left, "dim"))
        return grid

    def _numbers(self) -> Table:
        table = Table.grid(padding=(0, 3))
        shown = [(label, f"{self._latest[key]:{form}}") for label, key, form in _NUMBERS if key in self._latest]
        table.add_row(*(Text(label, "dim") for label, _ in shown), Text("F1 so far", "dim"))
        table.add_row(*(Text(value, "bold") for _, value in shown), Text(sparkline(self._f1), "cyan"))
        return table

    def _time(self) -> list[Text]:
        shares = time_shares(self._seconds)
        bar = Text.assemble(*(("━" * round(share * _BAR), _COLORS[part]) for part, share in shares.items()))
        words = Text("  ").join(Text(f"{part} {share:.0%}", _COLORS[part]) for part, share in shares.items())
        return [bar, words] if shares else []


def sparkline(values: list[float], width: int = 24) -> str:
    """Values in [0, 1] as a row of at most `width` blocks, evenly picked from the first to the last."""
    picked = values if len(values) <= width else [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    return "".join(_SPARKS[round(min(max(v, 0.0), 1.0) * (len(_SPARKS) - 1))] for v in picked)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
