"""A run's checkpoints and snapshots: when one is due, which are kept, and what the driver puts into them.

The learners' parts are written first, then the driver's, the manifest last: whole or not at all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from calibadv.checkpoints.folders import Draft, Stored
from calibadv.checkpoints.identity import Identity
from calibadv.checkpoints.manifest import Damaged, Manifest
from calibadv.checkpoints.progress import Best, Progress
from calibadv.checkpoints.storage import Kind, Storage, folder_name, superseded, unneeded
from calibadv.config import CheckpointConfig
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.learner_state import MODEL, CheckpointFailed
from calibadv.tracking.run_files import FIRST_PREDICTIONS, METRICS, PREDICTIONS, ROLLOUTS
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.target import STATE

log = logging.getLogger(__name__)

RUN = "run"  # the driver's part of a checkpoint
PROGRESS, IDENTITY = "progress.json", "identity.json"
# The run folder's own record up to the checkpoint: lines behind it belong to steps that are made again.
KEPT = (METRICS, ROLLOUTS, PREDICTIONS, FIRST_PREDICTIONS, STATE)


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
        with removing(self.storage):
            there = self.storage.versions(Kind.SNAPSHOT)
            self.storage.remove(Kind.SNAPSHOT, unneeded(there, needed, *self.named.values()))


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
    there: set[int] = field(default_factory=set)  # versions that were there when the run began, or that it wrote

    def go_on(self, progress: Progress, named: dict[int, tuple[int, ...]]) -> None:
        """Takes up the bookkeeping of a resumed run. `named`: kept checkpoint -> the snapshots that it needs."""
        self.saved, self.best, self.snapshots.named = progress.version, progress.best, named

    def due(self, version: int, *, last: bool) -> bool:
        """Whether one is to be written after `version` steps."""
        return self.settings.every > 0 and (last or version % self.settings.every == 0)

    def standing(self) -> dict[int, str]:
        """Each version that has a checkpoint, and what it is kept as: "best" or "kept"."""
        best = self.best.version if self.best else None
        return {version: "best" if version == best else "kept" for version in self.snapshots.named}

    def policy(self, version: int) -> str:
        """Where the policy of a version's checkpoint lies, a folder that `--model.path` opens where it is local."""
        return f"{self.snapshots.storage.root}/{folder_name(Kind.CHECKPOINT, version)}/{MODEL}"

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
            self._check_alone(version)
            stored = write_state(storage, Kind.CHECKPOINT, algorithm, version, files=files, needs=needs)
        except CheckpointFailed as error:
            self.failure = str(error)
            log.warning("%s; it is tried again when the next one is due", error)
            return False
        self.failure, self.saved, self.best = "", version, progress.best
        self.snapshots.named[version] = stored.manifest.snapshots
        self._forget(needs)
        return True

    def _check_alone(self, version: int) -> None:
        """`CheckpointFailed` where another run has finished a checkpoint here since this one began."""
        storage = self.snapshots.storage
        with _in_words(f"{folder_name(Kind.CHECKPOINT, version)} could not be written to {storage.root}", Exception):
            for other in set(storage.versions(Kind.CHECKPOINT)) - self.there - self.snapshots.named.keys():
                with suppress(Damaged):  # half of one: learners of a run that was killed may still have written it
                    stored = storage.stored(Kind.CHECKPOINT, other)
                    raise CheckpointFailed(
                        f"{stored.name} is there, which this run did not write, so that another run of its name writes "
                        "there too: end one of the two, or give it another --run.name"
                    )
        self.there.add(version)

    def _forget(self, needs: Collection[int]) -> None:
        """Removes what is no longer kept: only now that the new one is whole."""
        storage, named, best = self.snapshots.storage, self.snapshots.named, self.best.version if self.best else None
        gone = superseded(sorted(named), keep_last=self.settings.keep_last, best=best)
        with removing(storage):
            storage.remove(Kind.CHECKPOINT, gone)
            for version in gone:
                del named[version]
        self.snapshots.release(needs)


@contextmanager
def removing(storage: Storage) -> Iterator[None]:
    """Around the removal of what is no longer kept: where it fails, a warning; the next removal tries again."""
    try:
        yield
    except Exception as error:  # each file system has errors of its own
        log.warning("old checkpoints below %s could not be removed: %s", storage.root, _said(error))


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
    what = f"{folder_name(kind, version)} could not be written to {storage.root}"
    draft: Draft | None = None
    try:
        with _in_words(what, Exception):
            draft = storage.draft(kind, version)
        with _in_words(what, OSError, ValueError, CheckpointFailed):  # Ray's errors are not the storage's
            written = algorithm.save_state(draft, model=kind is Kind.CHECKPOINT)
        with _in_words(what, Exception):
            if files is not None:
                written |= draft.add(RUN, lambda folder: _write(folder, files))
            return draft.commit(Manifest(version, algorithm.num_learners, written, tuple(sorted(needs))))
    except BaseException:
        if draft is not None:
            _abandon(draft)
        raise


@contextmanager
def _in_words(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Around calls of the storage, whose file systems have errors of their own: raised as `CheckpointFailed`."""
    try:
        yield
    except errors as error:
        raise CheckpointFailed(f"{what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _abandon(draft: Draft) -> None:
    try:
        draft.abandon()
    except Exception as error:  # the error that is under way says what is wrong
        log.debug("the draft %s stays: %s", draft.name, error)


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
