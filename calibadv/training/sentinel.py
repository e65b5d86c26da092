"""The collapse sentinel at work: warns, stops the run, or takes the policy back to its last good snapshot.

It looks at a step's metrics before the new weights go out, so that no engine samples from what is taken back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calibadv.alarms import Alarm, alarms, healthy
from calibadv.config import SentinelConfig
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.training.checkpoints import Snapshots

log = logging.getLogger(__name__)

Row = dict[str, float]


class Collapsed(RuntimeError):
    """The sentinel ended the run."""


@dataclass
class Sentinel:
    """Watches one run. `snapshots` are taken for `rollback` only."""

    settings: SentinelConfig
    snapshots: Snapshots
    history: list[Row] = field(default_factory=list)  # of the steps that were not undone
    rollbacks: int = 0
    _said: set[tuple[str, int]] = field(default_factory=set)
    _good: int | None = None  # version of the snapshot to go back to
    _candidate: int | None = None  # version of a snapshot whose rollouts have not been looked at yet

    def begin(self, algorithm: CalibAdvAlgorithm) -> None:
        """Keeps the policy that the run starts from, or goes on from without a snapshot of an earlier one.

        Raises `CheckpointFailed` if it cannot be kept: there would be nothing to go back to.
        """
        if self.settings.action == "rollback" and self._good is None:
            self.snapshots.save(algorithm, algorithm.version)
            self._good = algorithm.version

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on watching as if nothing had happened."""
        return {
            "history": [dict(row) for row in self.history],
            "rollbacks": self.rollbacks,
            "said": sorted(self._said),
            "good": self._good,
            "candidate": self._candidate,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up `state`. Its snapshots must be there."""
        self.history = [dict(row) for row in state["history"]]
        self.rollbacks, self._good, self._candidate = state["rollbacks"], state["good"], state["candidate"]
        self._said = {(metric, step) for metric, step in state["said"]}

    @property
    def needed(self) -> set[int]:
        """Versions of the snapshots that it may go back to."""
        return {version for version in (self._good, self._candidate) if version is not None}

    def inspect(self, algorithm: CalibAdvAlgorithm, metrics: Row) -> Row:
        """What it adds to the metrics of the step just learned. Raises `Collapsed` where the run must end."""
        if self.settings.action == "off":
            return {}
        row: Row = {"step": algorithm.version + 1.0, **metrics}
        self.history.append(row)
        raised = alarms(self.history, self.settings)
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
        settings, good = self.settings, self._good
        assert good is not None, "begin comes first"
        if self.rollbacks >= settings.max_rollbacks:
            raise Collapsed(f"stopped after {self.rollbacks} roll-backs: {alarm.text}")
        self.rollbacks += 1
        algorithm.roll_back(self.snapshots.stored(good), settings.lr_scale)
        log.warning(
            "sentinel: back to the policy of version %d, learning rates times %g from now on (roll-back %d of %d)",
            good,
            settings.lr_scale,
            self.rollbacks,
            settings.max_rollbacks,
        )
        self._candidate = None
        # The good version's own rollouts were looked at in the step after it.
        self.history = [row for row in self.history if row["step"] <= good + 1]

    def _keep(self, algorithm: CalibAdvAlgorithm, row: Row) -> None:
        """A snapshot becomes good once the rollouts that it sampled are seen to be healthy."""
        version = algorithm.version
        if self._candidate == version and healthy(row, self.history, self.settings):
            self._good, self._candidate = version, None
        if (version + 1) % self.settings.snapshot_every == 0 and self.snapshots.try_save(algorithm, version + 1):
            self._candidate = version + 1
        self.snapshots.release(self.needed)
