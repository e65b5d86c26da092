"""What a run knows of its engines and of a step's progress while it waits, as the coordinator says it."""

from __future__ import annotations

import logging
from typing import Any

import ray

from calibadv.cluster.coordinator import StepProgress, find_coordinator
from calibadv.cluster.engine_registry import EngineReport
from calibadv.rllib.stall import START
from calibadv.types import Phase

logger = logging.getLogger(__name__)

STATE_TIMEOUT_S = 5.0  # for the coordinator to say how the engines are


class SeenEngines:
    """The engines of the coordinator called `coordinator`, of which `expected` are to be there."""

    def __init__(self, coordinator: str, expected: int) -> None:
        self._name, self._expected = coordinator, expected
        self._told = 0  # deaths that a warning has told of

    @property
    def coordinator(self) -> Any:
        """Its handle. Raises ValueError if there is none."""
        return find_coordinator(self._name)

    def words(self) -> str:
        """Who serves what, and who is missing; one line."""
        if not ray.is_initialized():  # to ask would start a new Ray
            return "Ray has ended"
        return str(self.report(STATE_TIMEOUT_S))

    def report(self, timeout_s: float | None = None) -> EngineReport:
        """The engines as they are now."""
        report: EngineReport = ray.get(self.coordinator.engines.remote(), timeout=timeout_s)
        return report

    def patience(self) -> float:
        """Engines that load a large model are given time; those that are not there yet may fit nowhere."""
        report = self.report(STATE_TIMEOUT_S)
        return START if len(report.starting) + len(report.serving) >= self._expected else 1.0

    def done(self, phase: Phase, step: int) -> StepProgress:
        """How far the rollouts and the update of a step are."""
        if not ray.is_initialized():  # to ask would start a new Ray
            return StepProgress()
        done: StepProgress = ray.get(self.coordinator.progress.remote((phase, step)), timeout=STATE_TIMEOUT_S)
        return done

    def updated(self, step: int) -> str | None:
        """How far the update of a step is, in words; None: not known."""
        done, of = self.done(Phase.TRAIN, step).update
        return f"{done} of {of} micro-batches" if of else None

    def count_deaths(self) -> int:
        """Engines that have died so far in the run, and a warning for those that none has told of yet."""
        deaths = self.report().deaths
        for words in deaths[self._told :]:
            logger.warning("an engine died and was replaced, its questions were rolled out again: %s", words)
        self._told = len(deaths)
        return len(deaths)
