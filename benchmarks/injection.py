"""Kills processes of a running training command, at moments that a seed decides, and measures what each kill cost."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from calibadv.tracking.run_folder import read_history

POLL_S = 0.25
PATIENCE_S = 900.0  # for a step after a kill: many times what a restart takes
# Ray names an actor's process after its class, and after the method that it runs.
TITLES = {
    "engine": "ray::MapWorker(MapBatches(RolloutWorker))",
    "search replica": "ray::ServeReplica:",
    "learner": "ray::_WrappedExecutable",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A kill: after which step, after what share of a step's usual time, and which of the kind's processes."""

    step: int
    kind: str
    share: float  # in [0, 1]
    draw: float  # in [0, 1)


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill that was made."""

    kind: str
    pid: int
    title: str
    after_step: int
    at_s: float  # since the run's start
    recovery_s: float | None  # until the next step was finished; None if none was


def plan_kills(steps: int, each: int, seed: int) -> list[Planned]:
    """`each` kills of every kind in a random order, one in each of as many equal parts of the run.

    None before the first step or after the last but one. ValueError for a run with fewer steps than kills.
    """
    number = each * len(TITLES)
    if steps - 2 < number:
        raise ValueError(f"{number} kills need a run of at least {number + 2} steps, got {steps}: raise --steps")
    draw = random.Random(seed)
    kinds = list(TITLES) * each
    draw.shuffle(kinds)
    width = (steps - 2) / number
    return [
        Planned(1 + int((index + draw.random()) * width), kind, draw.random(), draw.random())
        for index, kind in enumerate(kinds)
    ]


@dataclass
class Run:
    """A training command under way, seen from outside."""

    process: psutil.Popen
    folder: Path
    begun_s: float

    def __post_init__(self) -> None:
        self.seen: set[psutil.Process] = set()  # everything that it has started

    def made(self) -> int:
        """The last step that is written down."""
        return int(max((line["step"] for line in read_history(self.folder / "metrics.jsonl")), default=0))

    def processes(self, kind: str) -> list[psutil.Process]:
        """Its processes of a kind, in the order of their start."""
        self._look()
        return sorted((one for one in self.seen if _title(one).startswith(TITLES[kind])), key=lambda one: one.pid)

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came true before the run's end and in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return condition()
            time.sleep(POLL_S)
        return True

    def end(self) -> None:
        """Ends it and whatever it has started, if anything is left."""
        self._look()
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(psutil.TimeoutExpired):
                self.process.wait(120)
        for one in [self.process, *self.seen]:
            with suppress(psutil.NoSuchProcess):
                one.kill()

    def _look(self) -> None:
        """Adds what there is: its descendants, and the rest of its session, whose parents may be gone."""
        with suppress(psutil.NoSuchProcess):
            self.seen |= set(self.process.children(recursive=True))
        for pid in psutil.pids():
            with suppress(OSError, psutil.NoSuchProcess):
                if os.getsid(pid) == self.process.pid:
                    self.seen.add(psutil.Process(pid))


def kill_all(run: Run, planned: list[Planned], usual_s: float) -> Iterator[Kill]:
    """Makes the kills one after the other, each as soon as the run has recovered from the one before."""
    for one in planned:
        if not run.wait(lambda step=one.step: run.made() >= step, float("inf")):  # type: ignore[misc]
            return
        time.sleep(one.share * usual_s)
        if not run.wait(lambda kind=one.kind: bool(run.processes(kind)), PATIENCE_S):  # type: ignore[misc]
            return
        found = run.processes(one.kind)
        victim, before, now = found[int(one.draw * len(found))], run.made(), time.monotonic()
        title, at_s = _title(victim), time.time() - run.begun_s
        victim.kill()
        recovered = run.wait(lambda step=before: run.made() > step, PATIENCE_S)  # type: ignore[misc]
        yield Kill(one.kind, victim.pid, title, before, at_s, time.monotonic() - now if recovered else None)


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()).strip()
    return ""
