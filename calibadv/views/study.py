"""How a running study looks: a table of its runs that is drawn anew, or log lines where stdout is no terminal.

Both read what the runs write, metrics.jsonl: trials need no channel to the terminal, and none can hold another up.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from calibadv.json_lines import Tail
from calibadv.studies.grid import Plan, PlannedRun
from calibadv.studies.results import State
from calibadv.tracking.starting import draws
from calibadv.views.live import live_with_logging

log = logging.getLogger(__name__)

_NUMBERS = (
    ("held-out F1", "eval/f1", ".3f"),
    ("F1", "reward/f1", ".3f"),
    ("reward", "reward/mean", ".3f"),
    ("entropy", "policy/entropy", ".3f"),
)
_RUNNING = "running"
_COLORS = {_RUNNING: "cyan", State.DONE: "green", State.FAILED: "red"}
_POLL_S = 2.0


class Progress(Protocol):
    """A study as seen from the terminal; a context manager."""

    def stage(self, text: str) -> None:
        """What the study does before its first run begins."""

    def started(self, run: PlannedRun) -> None:
        """A run begins."""

    def ended(self, run: PlannedRun, failure: str) -> None:
        """A run has ended; `failure` says why, "" if it ended well."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def open_progress(plan: Plan, finished: set[str], console: Console | None = None) -> Progress:
    """The view that fits the terminal; `finished` names the runs that were done before."""
    if draws(console.is_terminal if console else sys.stdout.isatty()):
        return LiveProgress(plan, finished, console or Console())
    return PlainProgress(plan)


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


class LiveProgress:
    """A row a run, redrawn from rich's timer thread."""

    def __init__(self, plan: Plan, finished: set[str], console: Console) -> None:
        self._plan, self._console = plan, console
        self._states: dict[str, str] = {run.name: State.DONE for run in plan.runs if run.name in finished}
        self._tails = {run.name: Newest(Tail(run.folder / "metrics.jsonl")) for run in plan.runs}
        self._began: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._stage = ""
        self._live = Live(console=console, get_renderable=self.draw, refresh_per_second=2)
        self._shown = live_with_logging(self._live, console)

    def stage(self, text: str) -> None:
        self._stage = text

    def started(self, run: PlannedRun) -> None:
        self._stage = ""
        self._tails[run.name] = Newest(Tail(run.folder / "metrics.jsonl"))
        self._states[run.name], self._began[run.name] = _RUNNING, time.monotonic()

    def ended(self, run: PlannedRun, failure: str) -> None:
        self._states[run.name] = State.FAILED if failure else State.DONE
        self._spent[run.name] = time.monotonic() - self._began[run.name]

    def draw(self) -> Table:
        """The runs that fit the terminal: those that run or failed before those that wait or are done."""
        states = {run.name: self._states.get(run.name, State.WAITING) for run in self._plan.runs}
        table = Table(box=None, padding=(0, 2, 0, 0), caption=self._counts(states), caption_justify="left")
        for name in ("cell", "seed", "step", *(label for label, *_ in _NUMBERS), "state", "time"):
            table.add_column(name, justify="left" if name in ("cell", "state") else "right", header_style="dim")
        room = max(self._console.height - 5, 3)
        by_interest = sorted(self._plan.runs, key=lambda run: states[run.name] not in (_RUNNING, State.FAILED))
        shown = {run.name for run in by_interest[:room]}
        for run in self._plan.runs:
            if run.name in shown:
                table.add_row(*self._row(run, states[run.name]))
        return table

    def _row(self, run: PlannedRun, state: str) -> list[Text]:
        tail = self._tails[run.name]
        if state != State.WAITING:  # a file that is there belongs to an attempt that will be run anew
            tail.update()
        step = f"{tail.values.get('step', 0):.0f}/{run.config.run.steps}"
        numbers = [format(tail.values[key], form) if key in tail.values else "" for _, key, form in _NUMBERS]
        seconds = self._spent.get(run.name)
        if seconds is None and run.name in self._began:
            seconds = time.monotonic() - self._began[run.name]
        spent = "" if seconds is None else f"{seconds // 60:.0f}:{seconds % 60:02.0f}"
        style = "dim" if state == State.WAITING else ""
        row = [Text(text, style) for text in (run.cell.name, str(run.seed), step, *numbers)]
        return [*row, Text(state, _COLORS.get(state, "dim")), Text(spent, "dim")]

    def _counts(self, states: dict[str, str]) -> Text:
        order = (State.DONE, _RUNNING, State.FAILED, State.WAITING)
        counts = ", ".join(f"{n} {state}" for state in order if (n := list(states.values()).count(state)))
        return Text(f"{counts}{f'   {self._stage}' if self._stage else ''}", "dim")

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._shown.__exit__(None, None, None)


class PlainProgress:
    """A log line when a run begins, has taken another step, and ends."""

    def __init__(self, plan: Plan) -> None:
        self._running: dict[str, tuple[PlannedRun, Newest, float]] = {}
        self._total, self._ended = len(plan.runs), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def stage(self, text: str) -> None:
        log.info("%s", text)

    def started(self, run: PlannedRun) -> None:
        log.info("%s: begins", run.name)
        self._running[run.name] = (run, Newest(Tail(run.folder / "metrics.jsonl")), time.monotonic())

    def ended(self, run: PlannedRun, failure: str) -> None:
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
