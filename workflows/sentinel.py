"""The collapse sentinel at work: warns, stops the run, or takes the policy back to its last good snapshot.

It looks at a step's metrics before the new weights go out, so that no engine samples from what is taken back.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from calibadv.collapse import Alarm, alarms, healthy
from calibadv.config import SentinelSection
from calibadv.rllib.algorithm import CalibAdvAlgorithm

log = logging.getLogger(__name__)

Row = dict[str, float]


class Collapsed(RuntimeError):
    """The sentinel ended the run."""


@dataclass
class Sentinel:
    """Watches one run. `folder` takes the snapshots, for `rollback` only."""

    settings: SentinelSection
    folder: Path
    history: list[Row] = field(default_factory=list)  # of the steps that were not undone
    rollbacks: int = 0
    _said: set[tuple[str, int]] = field(default_factory=set)
    _good: int = 0  # version of the snapshot to go back to
    _candidate: int | None = None  # version of a snapshot whose rollouts have not been looked at yet

    def begin(self, algorithm: CalibAdvAlgorithm) -> None:
        """Keeps the policy that the run starts from."""
        if self.settings.action == "rollback":
            algorithm.save_snapshot(self.folder / "good")

    def inspect(self, algorithm: CalibAdvAlgorithm, metrics: Row) -> Row:
        """What it adds to the metrics of the step just learned. Raises `Collapsed` where the run must end."""
        if self.settings.action == "off":
            return {}
        row: Row = {"step": algorithm.version + 1.0, **metrics}
        self.history.append(row)
        raised = alarms(self.history, self.settings.limits)
        for alarm in raised:
            self._say(alarm)
        if raised and self.settings.action == "stop":
            raise Collapsed(f"stopped at step {row['step']:.0f}: {raised[0].text}")
        if self.settings.action == "rollback":
            if raised:
                self._roll_back(algorithm, raised[0])
            else:
                self._keep(algorithm, row)
        return {"sentinel/alarms": float(len(raised)), "sentinel/rollbacks": float(self.rollbacks)}

    def _say(self, alarm: Alarm) -> None:
        if (alarm.metric, alarm.since_step) not in self._said:
            self._said.add((alarm.metric, alarm.since_step))
            log.warning("sentinel: %s", alarm.text)

    def _roll_back(self, algorithm: CalibAdvAlgorithm, alarm: Alarm) -> None:
        settings = self.settings
        if self.rollbacks == settings.max_rollbacks:
            raise Collapsed(f"stopped after {self.rollbacks} roll-backs: {alarm.text}")
        self.rollbacks += 1
        algorithm.roll_back(self.folder / "good", settings.lr_scale)
        log.warning(
            "sentinel: back to the policy of version %d, learning rates times %g from now on (roll-back %d of %d)",
            self._good,
            settings.lr_scale,
            self.rollbacks,
            settings.max_rollbacks,
        )
        self._candidate = None
        # The good version's own rollouts were looked at in the step after it.
        self.history = [row for row in self.history if row["step"] <= self._good + 1]

    def _keep(self, algorithm: CalibAdvAlgorithm, row: Row) -> None:
        """A snapshot becomes good once the rollouts that it sampled are seen to be healthy."""
        version, good, candidate = algorithm.version, self.folder / "good", self.folder / "candidate"
        if self._candidate == version and healthy(row, self.history, self.settings.limits):
            shutil.rmtree(good)
            candidate.replace(good)
            self._good, self._candidate = version, None
        if (version + 1) % self.settings.snapshot_every == 0:
            algorithm.save_snapshot(candidate)
            self._candidate = version + 1
