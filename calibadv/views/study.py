"""How a running study looks: a table of its runs that is drawn anew, or log lines where stdout is no terminal.

Both read what the runs write, metrics.jsonl: trials need no channel to the terminal, and none can hold another up.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from calibadv.config import Config
from calibadv.json_lines import Tail
from calibadv.tracking.run_files import METRICS
from calibadv.tracking.starting import draws
from calibadv.views.live import live_with_logging
from calibadv.views.summary import clock

log = logging.getLogger(__name__)

_NUMBERS = (
    ("held-out F1", "eval/f1", ".3f"),
    ("F1", "reward/f1", ".3f"),
    ("reward", "reward/mean", ".3f"),
    ("entropy", "policy/entropy", ".3f"),
)
_POLL_S = 2.0


class _State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"


_COLORS = {_State.RUNNING: "cyan", _State.DONE: "green", _State.FAILED: "red", _State.WAITING: "dim"}


class Named(Protocol):
    """A cell of the study."""

    @property
    def name(self) -> str: ...


class Run(Protocol):
    """One run of the study: its name is its own, its folder gets a metrics.jsonl."""

    @property
    def name(self) -> str: ...

    @property
    def cell(self) -> Named: ...

    @property
    def config(self) -> Config: ...

    @property
    def folder(self) -> Path: ...


class StudyView(Protocol):
    """A study as seen from the terminal; a context manager."""

    def stage(self, text: str) -> None:
        """What the study does before its first run begins."""

    def started(self, run: Run) -> None:
        """A run begins."""

    def ended(self, run: Run, failure: str) -> None:
        """A run has ended; `failure` says why, "" if it ended well."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def open_study_view(runs: Sequence[Run], finished: set[str], console: Console | None = None) -> StudyView:
    """The view that fits the terminal; `finished` names the runs that were done before."""
    if draws(console.is_terminal if console else sys.stdout.isatty()):
        return LiveStudy(runs, finished, console or Console())
    return PlainStudy()


@dataclass
class Newest:
    """The newest value of every metric in a file that grows."""

    tail: Tail
    values: dict[str, float] = field(default_factory=dict)

    def update(self) -> bool:
        """Whether whole lines were added."""
        before, added = self.tail.offset, list(self.tail.added())
        if self.tail.offset < before:  # the file was begun anew
            self.values = {}
        for line, end in added:
            self.values |= line
            self.tail.offset = end
        return bool(added)


class LiveStudy:
    """A row a run, redrawn from rich's timer thread."""

    def __init__(self, runs: Sequence[Run], finished: set[str], console: Console) -> None:
        self._runs, self._console = runs, console
        self._states = {run.name: _State.DONE for run in runs if run.name in finished}
        self._tails = {run.name: Newest(Tail(run.folder / METRICS)) for run in runs}
        self._began: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._stage = ""
        self._live = Live(console=console, get_renderable=self.draw, refresh_per_second=2)
        self._shown = live_with_logging(self._live, console)

    def stage(self, text: str) -> None:
        self._stage = text

    def started(self, run: Run) -> None:
        self._stage = ""
        self._tails[run.name] = Newest(Tail(run.folder / METRICS))
        self._states[run.name], self._began[run.name] = _State.RUNNING, time.monotonic()

    def ended(self, run: Run, failure: str) -> None:
        self._states[run.name] = _State.FAILED if failure else _State.DONE
        self._spent[run.name] = time.monotonic() - self._began[run.name]

    def draw(self) -> Table:
        """The runs that fit the terminal: those that run or failed before those that wait or are done."""
        states = {run.name: self._states.get(run.name, _State.WAITING) for run in self._runs}
        table = Table(box=None, padding=(0, 2, 0, 0), caption=self._counts(states), caption_justify="left")
        for name in ("cell", "seed", "step", *(label for label, *_ in _NUMBERS), "state", "time"):
            table.add_column(name, justify="left" if name in ("cell", "state") else "right", header_style="dim")
        room = max(self._console.height - 5, 3)
        by_interest = sorted(self._runs, key=lambda run: states[run.name] not in (_State.RUNNING, _State.FAILED))
        shown = {run.name for run in by_interest[:room]}
        for run in self._runs:
            if run.name in shown:
                table.add_row(*self._row(run, states[run.name]))
        return table

    def _row(self, run: Run, state: _State) -> list[Text]:
        tail = self._tails[run.name]
        if state is not _State.WAITING:  # a file that is there belongs to an attempt that will be run anew
            tail.update()
        step = f"{tail.values.get('step', 0):.0f}/{run.config.run.steps}"
        numbers = [format(tail.values[key], form) if key in tail.values else "" for _, key, form in _NUMBERS]
        seconds = self._spent.get(run.name)
        if seconds is None and run.name in self._began:
            seconds = time.monotonic() - self._began[run.name]
        spent = "" if seconds is None else clock(seconds)
        style = "dim" if state is _State.WAITING else ""
        row = [Text(text, style) for text in (run.cell.name, str(run.config.run.seed), step, *numbers)]
        return [*row, Text(state, _COLORS[state]), Text(spent, "dim")]

    def _counts(self, states: dict[str, _State]) -> Text:
        counts = ", ".join(f"{n} {state}" for state in _State if (n := list(states.values()).count(state)))
        return Text(f"{counts}{f'   {self._stage}' if self._stage else ''}", "dim")

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._shown.__exit__(None, None, None)


class PlainStudy:
    """A log line when a run begins, has taken another step, and ends."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[Run, Newest, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def stage(self, text: str) -> None:
        log.info("%s", text)

    def started(self, run: Run) -> None:
        log.info("%s: begins", run.name)
        self._running[run.name] = (run, Newest(Tail(run.folder / METRICS)), time.monotonic())

    def ended(self, run: Run, failure: str) -> None:
        self.say_steps()
        *_, began = self._running.pop(run.name)
        spent = time.monotonic() - began
        if failure:
            log.error("%s: failed after %.0f s: %s", run.name, spent, failure.strip().rpartition("\n")[2])
        else:
            log.info("%s: done in %.0f s", run.name, spent)

    def say_steps(self) -> None:
        """A line for every run that has taken a step since the last time."""
        for run, tail, _ in list(self._running.values()):
            if tail.update():
                numbers = [f"{label} {tail.values[key]:{form}}" for label, key, form in _NUMBERS if key in tail.values]
                step = f"step {tail.values['step']:.0f}/{run.config.run.steps}"
                log.info("%s: %s  %s", run.name, step, "  ".join(numbers))

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_S):
            self.say_steps()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
