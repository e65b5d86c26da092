"""EnvRunner over the rollout stream: `sample(phase, step)` returns the groups of one step of the run.

The engines live in the Ray Data actor pool for the whole run. This runner owns the one streaming execution: a thread
drains it, so that engines start while the learner is built, and rows wait here until their step is asked for.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import ray
from ray.exceptions import RayActorError
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_runner import EnvRunner

from calibadv.cluster.coordinator import StepProgress, find_coordinator
from calibadv.cluster.rows import FinishedRow
from calibadv.rllib.stream import RolloutStream
from calibadv.types import Document, Group, Phase

Look = Callable[["StepSample"], None]

NO_SPACE: gym.Space[Any] = gym.spaces.Discrete(1)  # RLlib wants spaces; a token sequence has none
STOP_TIMEOUT_S = 30.0  # for the stream to notice that its engines are gone


@dataclass(slots=True)
class StepSample:
    """The finished rollouts of one step, in question order, and what the environment lost."""

    groups: list[Group] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)  # indices into `groups` that are written out for people
    documents: dict[str, Document] = field(default_factory=dict)  # retrieved by the groups that are written out
    infra_failed: int = 0  # rollouts whose search failed, those sampled again included
    dropped_groups: int = 0  # questions given up on, never scored
    counts: Counter[str] = field(default_factory=Counter)  # what the method's turn scorer reports, summed
    engine_rows: Counter[str] = field(default_factory=Counter)  # engine -> questions it rolled out
    step: int = 0  # the policy version that the step belongs to
    engine_deaths: int = 0  # so far, since this process began
    mixed: int = 0  # questions whose rollouts went on with newer weights than they began with
    seconds: float = 0.0  # from the first rollout's start to the last one's end

    @property
    def staleness(self) -> list[int]:
        """Of each trajectory, how many versions older than its step the policy was that sampled it."""
        return [self.step - trajectory.policy_version for group in self.groups for trajectory in group.trajectories]


@dataclass(frozen=True, slots=True)
class SampleProgress:
    """How much of a step has come in."""

    done: int
    of: int  # 0 while the stream is being opened
    infra_failed: int  # rollouts among them whose search failed
    engines: StepProgress | None = None  # what the engines say of the step

    def __str__(self) -> str:
        if not self.of:
            return "the stream of questions is being opened"
        lost = f", in which {self.infra_failed} rollouts lost their search" if self.infra_failed else ""
        counts = self.engines.counts if self.engines else None
        said = f", {counts.rollouts:,} rollouts done, {counts.searches:,} searches" if counts else ""
        return f"{self.done:,} of {self.of:,} questions are in{said}{lost}"


class RolloutEnvRunner(EnvRunner):  # type: ignore[misc]
    """Hands out the stream step by step. One per run, in the driver."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rows: queue.SimpleQueue[FinishedRow | BaseException] = queue.SimpleQueue()
        self._finished: dict[tuple[Phase, int], list[FinishedRow]] = defaultdict(list)
        self.engines_are_up = False  # a row has come out
        self._expected: dict[tuple[Phase, int], int] = {}
        self._stopped = threading.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._reader = threading.Thread(target=self._drain, args=(self.config.stream,), daemon=True, name="rollouts")
        self._reader.start()
        if self.config.calibadv.rollout.colocated:
            self._await_engines()

    def _await_engines(self) -> None:
        """Until every engine has a GPU and sleeps: RLlib builds the learners next, which take what is left of them."""
        coordinator = find_coordinator(self.config.coordinator)
        started = coordinator.started.remote(self.config.calibadv.rollout.engines)
        while self._reader.is_alive() and not ray.wait([started], timeout=1.0)[0]:
            pass  # of a stream that could not start `sample` tells

    def progress(self, phase: Phase, step: int, engines: StepProgress | None = None) -> SampleProgress:
        """How much of (phase, step) has come in, and what the `engines` say they have done of it; for any thread."""
        rows = list(self._finished.get((phase, step), ()))
        failed = sum(row.rolled.infra_failed for row in rows)
        return SampleProgress(len(rows), self._expected.get((phase, step), 0), failed, engines)

    def sample(self, *, phase: Phase, step: int, first: int = 0, look: Look = lambda _: None) -> StepSample:
        """Waits for every row of (phase, step). Raises what the stream raised, or RuntimeError if it ended early.

        `look` is shown the `first` questions as soon as all of them are in (not those that are done first: they are the
        shortest), and may raise.
        """
        key = (phase, step)
        self._ready.wait()
        looked = first == 0
        while not self._expected or len(self._finished[key]) < self._expected[key]:
            if not looked and len(early := self._early(key, first)) == first:
                look(_collect(early, step))
                looked = True
            if self._failure is not None:
                raise self._failure
            row = self._rows.get()
            if isinstance(row, BaseException):
                self._failure = row  # for whoever asks again: nothing more will come
                continue
            self._finished[row.phase, row.step].append(row)
            self.engines_are_up = True
        return _collect(sorted(self._finished.pop(key), key=lambda row: row.index), step)

    def _early(self, key: tuple[Phase, int], first: int) -> list[FinishedRow]:
        """The rows of the first questions that are in, in order."""
        return sorted((row for row in self._finished[key] if row.index < first), key=lambda row: row.index)

    def _drain(self, stream: RolloutStream) -> None:
        try:
            self._expected, rows = stream.open()
            self._ready.set()
            for row in rows:
                if self._stopped.is_set():
                    return
                self._rows.put(row)
            self._rows.put(RuntimeError("the rollout stream ended before all of its steps were complete"))
        except BaseException as error:  # handed to the thread that waits in `sample`
            if not self._stopped.is_set():
                self._rows.put(error)
        finally:
            self._ready.set()

    def stop(self) -> None:
        """Ends the engines and with them the stream: its thread must not outlive Ray, or it would start a new one."""
        self._stopped.set()
        if self._reader.is_alive():
            with contextlib.suppress(ValueError, RayActorError):  # no coordinator, no engines
                ray.get(find_coordinator(self.config.coordinator).end_all.remote())
            self._reader.join(timeout=STOP_TIMEOUT_S)

    def assert_healthy(self) -> None:
        """Nothing to check: a broken stream raises in `sample`."""

    def set_state(self, state: Any) -> None:
        """Nothing: it holds no module, engines pull their weights themselves."""

    def get_metrics(self) -> dict[str, Any]:
        return {}

    def get_spaces(self) -> dict[str, Any]:
        return {"__env__": (NO_SPACE, NO_SPACE), DEFAULT_MODULE_ID: (NO_SPACE, NO_SPACE)}


def _collect(rows: list[FinishedRow], step: int) -> StepSample:
    sample = StepSample(step=step)
    if rows:
        sample.seconds = max(row.finished_s for row in rows) - min(row.started_s for row in rows)
    for row in rows:
        rolled = row.rolled
        sample.infra_failed += rolled.infra_failed
        sample.engine_rows[row.engine] += 1
        sample.mixed += row.mixed
        sample.counts.update(rolled.counts)
        if rolled.group is None:
            sample.dropped_groups += 1
            continue
        if row.sampled:
            sample.sampled.append(len(sample.groups))
        sample.documents.update(rolled.documents or {})
        sample.groups.append(rolled.group)
    return sample
