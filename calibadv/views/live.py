"""The view on a terminal: start-up stages with a spinner, then what happens now, progress, the numbers and the time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.logging import RichHandler
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from calibadv.views.foreign_output import ForeignOutput
from calibadv.views.rollout import summary_text
from calibadv.views.summary import NUMBERS, TIME_PARTS, NowFn, RunSummary, clock, time_shares

log = logging.getLogger(__name__)

_COLORS = {"rollout": "blue", "learn": "yellow", "sync": "green", "eval": "magenta", "other": "bright_black"}
_SPARKS = "▁▂▃▄▅▆▇█"
_SHOWN_STAGES = 8
_OTHER_LINES = 9  # beside stages and numbers: progress, what happens now, time, and what stands between them
_BAR = 48  # characters of a bar, at most
_GAP = 3  # blanks between two numbers


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    waiting_for: str
    began: float
    seconds: float | None = None  # None while it runs
    note: str = ""
    failed: bool = False


class LiveView:
    """Drawn by rich's Live from a timer thread; every call only replaces what is drawn next.

    Without a `console` it draws on the terminal, and takes file descriptors 1 and 2 away from everybody else.
    """

    def __init__(self, total_steps: int, console: Console | None = None) -> None:
        self._total_steps = total_steps
        self._given = console
        self._stages: list[_Stage] = []
        self._latest: dict[str, float] = {}
        self._f1: list[float] = []
        self._seconds: Counter[str] = Counter()
        self._ends_s: float | None = None  # when the run is expected to, on the monotonic clock
        self._now: NowFn = lambda: None
        self._spinner = Spinner("dots")
        self._foreign: ForeignOutput | None = None

    def stage(self, name: str, waiting_for: str) -> None:
        self.stage_done()
        self._stages.append(_Stage(name, waiting_for, time.monotonic()))
        self._live.refresh()

    def stage_done(self, note: str = "") -> None:
        self._end_stage(note, failed=False)

    def follow(self, now: NowFn) -> None:
        self._now = now

    def keep_output(self, path: Path) -> None:
        if self._foreign is not None:
            self._foreign.keep(path)

    def step(self, metrics: Mapping[str, float], left_s: float | None = None) -> None:
        self.stage_done()
        self._latest |= metrics
        self._ends_s = None if left_s is None else time.monotonic() + left_s
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
        if self._given is None:
            self._foreign = ForeignOutput()
        # Anew for each line of its own: what others print has a file, or goes above the live lines.
        self._console = self._given or Console(file=self._foreign.terminal if self._foreign else None)
        redirect = self._foreign is None
        self._live = Live(
            get_renderable=self.draw,
            console=self._console,
            refresh_per_second=8,
            redirect_stdout=redirect,
            redirect_stderr=redirect,
        )
        self._shown: AbstractContextManager[None] = live_with_logging(self._live, self._console)
        self._shown.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        failed = exception[0] is not None
        self._end_stage("", failed=failed)
        self._now = lambda: None
        try:
            self._shown.__exit__(None, None, None)
        finally:
            if self._foreign is not None:
                self._foreign.close()
                path, self._foreign = self._foreign.path, None
                if failed and path is not None and path.stat().st_size:
                    log.warning("what Ray and other libraries wrote meanwhile is in %s", path)

    def _end_stage(self, note: str, failed: bool) -> None:
        if self._stages and self._stages[-1].seconds is None:
            stage = self._stages[-1]
            self._stages[-1] = replace(stage, seconds=time.monotonic() - stage.began, note=note, failed=failed)

    # ---- what is drawn --------------------------------------------------------------------------------------------

    def draw(self) -> RenderableType:
        """What is seen at this moment."""
        training: list[RenderableType] = []
        room = _SHOWN_STAGES
        if self._latest:
            numbers = self._numbers()
            training = [Text(), self._progress(), self._activity(), Text(), *numbers, Text(), *self._time()]
            room = min(room, self._console.height - 2 * len(numbers) - _OTHER_LINES)
        elif not self._stages or self._stages[-1].seconds is not None:
            training = [self._activity()]
        return Group(*([self._stage_table(max(room, 1))] if self._stages else []), *training)

    def _stage_table(self, room: int) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(min_width=1)
        table.add_column(min_width=max(len(stage.name) for stage in self._stages))
        table.add_column(min_width=len("1000.0 s"), justify="right")
        trains = bool(self._latest)  # then a line a stage is enough
        table.add_column(overflow="ellipsis" if trains else "fold", no_wrap=trains)
        for stage in self._stages[-room:]:
            if stage.seconds is None:
                spent = time.monotonic() - stage.began
                now = self._now()
                doing = now.progress if now is not None and now.progress else stage.waiting_for
                table.add_row(self._spinner, Text(stage.name, "bold"), f"{spent:.1f} s", Text(doing, "dim"))
            else:
                tick = Text("✗", "red") if stage.failed else Text("✓", "green")
                table.add_row(tick, Text(stage.name), f"{stage.seconds:.1f} s", Text(stage.note, "dim"))
        return table

    def _activity(self) -> Table:
        now = self._now()
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        if now is None:
            table.add_row(self._spinner, Text("files and figures of the run", "dim"))
        else:
            said = Text.assemble(now.name, (f"  {clock(now.seconds)}", "dim"))
            table.add_row(self._spinner, said)
            if now.progress:
                table.add_row("", Text(now.progress, "dim"))
        return table

    def _progress(self) -> Table:
        step, ends_s = int(self._latest.get("step", 0)), self._ends_s
        count = f"{step}/{self._total_steps}"
        left = "" if ends_s is None else f"{clock(ends_s - time.monotonic())} left"
        width = self._console.width - len(count) - len(left) - len("step") - 3 * 2
        bar = ProgressBar(total=max(self._total_steps, 1), completed=step, width=max(min(width, _BAR), 4))
        grid = Table.grid(padding=(0, 2))
        for _ in range(4):
            grid.add_column(no_wrap=True)
        grid.add_row(Text("step", "bold"), Text(count), bar, Text(left, "dim"))
        return grid

    def _numbers(self) -> list[Table]:
        """All of them, in as many rows as the width needs."""
        cells = [(label, f"{self._latest[key]:{form}}", "bold") for label, key, form in NUMBERS if key in self._latest]
        width = self._console.width
        cells.append(("F1 so far", sparkline(self._f1, min(24, width)), "cyan"))
        rows: list[list[tuple[str, str, str]]] = [[]]
        for cell in cells:
            if rows[-1] and _width([*rows[-1], cell]) > width:
                rows.append([])
            rows[-1].append(cell)
        tables = []
        for row in rows:
            table = Table.grid(padding=(0, _GAP))
            for _ in row:
                table.add_column(no_wrap=True)
            table.add_row(*(Text(label, "dim") for label, _, _ in row))
            table.add_row(*(Text(value, style) for _, value, style in row))
            tables.append(table)
        return tables

    def _time(self) -> list[Text]:
        shares = time_shares(self._seconds)
        width = min(_BAR, self._console.width)
        bar = Text.assemble(*(("━" * round(share * width), _COLORS[part]) for part, share in shares.items()))
        words = Text("  ").join(Text(f"{part} {share:.0%}", _COLORS[part]) for part, share in shares.items())
        colours = self._console.color_system is not None and not self._console.no_color
        return [*([bar] if colours else []), words] if shares else []  # without colours the bar says nothing


@contextmanager
def live_with_logging(live: Live, console: Console) -> Iterator[None]:
    """Shows `live` within the block, with the root logger's stream handlers replaced by one of its console.

    Lines that are written past a live display would tear it.
    """
    root = logging.getLogger()
    # A short time: in a narrow window the date and its brackets take a third of the line.
    handler = RichHandler(console=console, show_path=False, markup=False, log_time_format="%H:%M:%S")
    muted = [other for other in root.handlers if type(other) is logging.StreamHandler]
    for other in muted:
        root.removeHandler(other)
    root.addHandler(handler)
    live.start(refresh=True)
    try:
        yield
    finally:
        live.stop()
        root.removeHandler(handler)
        for other in muted:
            root.addHandler(other)
        console.show_cursor(True)  # rich shows it in stop(); once more for a stop() that was itself interrupted


def _width(row: list[tuple[str, str, str]]) -> int:
    return sum(max(len(label), len(value)) for label, value, _ in row) + _GAP * (len(row) - 1)


def sparkline(values: list[float], width: int = 24) -> str:
    """Values in [0, 1] as a row of at most `width` blocks, evenly picked from the first to the last."""
    picked = values if len(values) <= width else [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    return "".join(_SPARKS[round(min(max(v, 0.0), 1.0) * (len(_SPARKS) - 1))] for v in picked)
