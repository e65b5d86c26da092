"""Snapshots and checkpoints as the driver writes them: the learners' parts, then its own, the manifest last."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calibadv.checkpoints.folders import Draft, Stored
from calibadv.checkpoints.manifest import Manifest
from calibadv.checkpoints.storage import Kind, Storage, folder_name, unneeded
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.learner_state import CheckpointFailed

log = logging.getLogger(__name__)

RUN = "run"  # the driver's part of a checkpoint


@dataclass
class Snapshots:
    """The learners' states that the sentinel may go back to, beside the checkpoints that may name them."""

    storage: Storage
    named: dict[int, tuple[int, ...]] = field(default_factory=dict)  # kept checkpoint -> snapshots it needs

    def save(self, algorithm: CalibAdvAlgorithm, version: int) -> None:
        """Keeps the learners' state of now as `version`. Raises `CheckpointFailed`."""
        write_state(self.storage, Kind.SNAPSHOT, algorithm, version)

    def try_save(self, algorithm: CalibAdvAlgorithm, version: int) -> bool:
        """`save`; False, with a warning, where it cannot be written."""
        try:
            self.save(algorithm, version)
        except CheckpointFailed as error:
            log.warning("%s: the sentinel keeps the snapshot that it has", error)
            return False
        return True

    def stored(self, version: int) -> Stored:
        """The snapshot of a version. ValueError if it is not whole."""
        return self.storage.stored(Kind.SNAPSHOT, version)

    def release(self, needed: Collection[int]) -> None:
        """Removes the snapshots that neither are `needed` now nor by a kept checkpoint."""
        there = self.storage.versions(Kind.SNAPSHOT)
        self.storage.remove(Kind.SNAPSHOT, unneeded(there, needed, *self.named.values()))


def write_state(
    storage: Storage,
    kind: Kind,
    algorithm: CalibAdvAlgorithm,
    version: int,
    *,
    files: Mapping[str, bytes] | None = None,
    needs: Collection[int] = (),
) -> Stored:
    """Writes the learners' state and the driver's `files`, whole or not at all; a checkpoint holds the policy as well.

    Raises `CheckpointFailed` in words for whatever goes wrong with the files; a learner's death is raised as it is.
    """
    name = folder_name(kind, version)
    draft: Draft | None = None
    try:
        draft = storage.draft(kind, version)
        written = algorithm.save_state(draft, model=kind is Kind.CHECKPOINT)
        if files is not None:
            written |= draft.add(RUN, lambda folder: _write(folder, files))
        return draft.commit(Manifest(version, algorithm.num_learners, written, tuple(sorted(needs))))
    except BaseException as error:
        if draft is not None:
            _abandon(draft)
        if isinstance(error, OSError | ValueError | CheckpointFailed):
            raise CheckpointFailed(f"{name} could not be written to {storage.root}: {error}") from error
        raise


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _abandon(draft: Draft) -> None:
    try:
        draft.abandon()
    except Exception as error:  # the error that is under way says what is wrong
        log.debug("the draft %s stays: %s", draft.name, error)
