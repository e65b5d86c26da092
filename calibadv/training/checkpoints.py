"""A run's checkpoints: when one is due, which are kept, and what the driver puts into them."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass

from calibadv.checkpoints.identity import Identity
from calibadv.checkpoints.progress import Best, Progress
from calibadv.checkpoints.storage import Kind, superseded
from calibadv.config import CheckpointConfig
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.tracking.mlflow_store import STATE
from calibadv.tracking.run_folder import RunFolder
from calibadv.training.snapshots import Snapshots, write_state

log = logging.getLogger(__name__)

PROGRESS, IDENTITY = "progress.json", "identity.json"
# The run folder's own record up to the checkpoint: lines behind it belong to steps that are made again.
KEPT = ("metrics.jsonl", "rollouts.jsonl", "predictions.jsonl", STATE)


@dataclass
class Checkpoints:
    """Writes the checkpoints of one run. One that cannot be written is said and tried again when the next is due."""

    settings: CheckpointConfig
    identity: Identity
    folder: RunFolder
    snapshots: Snapshots
    saved: int = 0  # version of the newest one; 0 = none
    best: Best | None = None  # of those that were kept
    failure: str = ""  # why the last one could not be written

    def go_on(self, progress: Progress, named: dict[int, tuple[int, ...]]) -> None:
        """Takes up the bookkeeping of a resumed run. `named`: kept checkpoint -> the snapshots that it needs."""
        self.saved, self.best, self.snapshots.named = progress.version, progress.best, named

    def due(self, version: int, *, last: bool) -> bool:
        """Whether one is to be written after `version` steps."""
        return self.settings.every > 0 and (last or version % self.settings.every == 0)

    def improved(self, version: int, f1: float) -> Best | None:
        """The version as the new best one, or None if it is not better, or none is to be kept."""
        if not (self.settings.every and self.settings.keep_best):
            return None
        return Best(version, f1) if self.best is None or f1 > self.best.f1 else None

    def save(self, algorithm: CalibAdvAlgorithm, progress: Progress, needs: Collection[int] = ()) -> bool:
        """Whether it was written. `needs`: snapshots that going on from here may go back to."""
        files = {
            PROGRESS: _json(progress.to_json()),
            IDENTITY: _json(self.identity.to_dict()),
            **{name: content for name in KEPT if (content := self.folder.content(name)) is not None},
        }
        storage, version = self.snapshots.storage, progress.version
        try:
            stored = write_state(storage, Kind.CHECKPOINT, algorithm, version, files=files, needs=needs)
        except CheckpointFailed as error:
            self.failure = str(error)
            log.warning("%s; it is tried again when the next one is due", error)
            return False
        self.failure, self.saved, self.best = "", version, progress.best
        self.snapshots.named[version] = stored.manifest.snapshots
        self._forget(needs)
        return True

    def _forget(self, needs: Collection[int]) -> None:
        """Removes what is no longer kept: only now that the new one is whole."""
        named, best = self.snapshots.named, self.best.version if self.best else None
        gone = superseded(sorted(named), keep_last=self.settings.keep_last, best=best)
        try:
            self.snapshots.storage.remove(Kind.CHECKPOINT, gone)
            for version in gone:
                del named[version]
            self.snapshots.release(needs)
        except OSError as error:
            log.warning("old checkpoints below %s could not be removed: %s", self.snapshots.storage.root, error)


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
