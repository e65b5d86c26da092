"""Going on with a run: its checkpoints' place, the newest whole one, and whether this is still the same run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from calibadv.checkpoints.folders import Stored
from calibadv.checkpoints.identity import Identity, differences
from calibadv.checkpoints.manifest import Damaged
from calibadv.checkpoints.progress import Progress
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.cluster.prompts import DATE
from calibadv.config import Config, ConfigError
from calibadv.rllib.schedule import evaluation_versions
from calibadv.rllib.stream import Start
from calibadv.tracking.run_files import CHECKPOINTS, FIRST_PREDICTIONS, read_summary
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.target import STATE
from calibadv.training.checkpoints import IDENTITY, KEPT, PROGRESS, RUN, removing

log = logging.getLogger(__name__)

RETRY = "start it anew with --run.overwrite true, or give another --run.name"


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that goes on: from which checkpoint, and how far it was there."""

    checkpoint: Stored
    progress: Progress
    named: dict[int, tuple[int, ...]]  # checkpoint that is kept -> snapshots that it needs

    @property
    def start(self) -> Start:
        """For the rollout stream and the learners."""
        version = self.progress.version
        return Start(version, version in self.progress.evaluations, self.checkpoint)


def storage_of(config: Config, run_folder: Path) -> Storage:
    """Where the run's checkpoints lie: in its folder, or under its name below `checkpoint.uri`."""
    uri = config.checkpoint.uri
    if not uri:
        return Storage(str(run_folder / CHECKPOINTS))
    root = uri.rstrip("/") if "://" in uri else str(Path(uri).absolute())
    return Storage(f"{root}/{config.run_name}")


def date_of_checkpoint(storage: Storage) -> str:
    """The day of the newest checkpoint's run; "" where there is none, or its prompts have no date."""
    storage.prepare()
    for version in reversed(storage.versions(Kind.CHECKPOINT)):
        try:
            identity = storage.stored(Kind.CHECKPOINT, version).json(f"{RUN}/{IDENTITY}")
            return str(identity["settings"].get(DATE, ""))
        except (Damaged, OSError, KeyError):
            continue
    return ""


def finished_steps(run_folder: Path) -> int | None:
    """How many steps the run in the folder has finished with; None if it has not finished, or is not there."""
    summary = read_summary(run_folder)
    return None if summary is None else int(summary["steps"])


def begin_anew(storage: Storage, *, overwrite: bool) -> None:
    """Makes room for a new run's checkpoints. ValueError where another run's are, unless `overwrite`."""
    storage.prepare()
    if any(storage.versions(kind) for kind in Kind):
        if not overwrite:
            raise ConfigError(
                f"{storage.root} holds checkpoints of an earlier run: go on with it by --resume, give another "
                "--run.name, or replace them with --run.overwrite true"
            )
        storage.clear()


def resume_run(config: Config, identity: Identity, storage: Storage, folder: RunFolder) -> Resumed:
    """The run as its newest whole checkpoint has it; its folder's records are put back to that moment.

    Says which checkpoints it passes over, and why. ConfigError, before anything is changed, where there is none, or
    where configuration or data are no longer those of the run, naming every difference.
    """
    checkpoint = _newest(storage)
    if checkpoint is None:
        raise ConfigError(f"there is nothing to go on from: {storage.root} holds no whole checkpoint; {RETRY}")
    return _resumed(config, identity, checkpoint, storage, folder)


def restart_run(config: Config, identity: Identity, storage: Storage, folder: RunFolder) -> Resumed | None:
    """The run as its newest whole checkpoint has it; None where there is none: it begins anew, as the same MLflow run.

    Says which steps are made again.
    """
    made = int(max((line["step"] for line in folder.history()), default=0))
    checkpoint, resumed = _newest(storage), None
    if checkpoint is not None:
        resumed = _resumed(config, identity, checkpoint, storage, folder)
    else:
        folder.restore({name: None for name in KEPT if name != STATE}, 0)
    version = resumed.progress.version if resumed else 0
    steps = {0: "", 1: f"step {made} and "}.get(made - version, f"steps {version + 1} to {made} and ")
    whence = f"from the checkpoint of step {version}" if resumed else "from the start, for there is no checkpoint yet"
    log.warning("made again: %swhat of a step was under way, %s", steps, whence)
    return resumed


def _newest(storage: Storage) -> Stored | None:
    """The newest whole checkpoint; says which it passes over, and why."""
    storage.prepare()
    checkpoint, skipped = storage.newest()
    for words in skipped:
        log.warning("%s", words)
    return checkpoint


def _resumed(config: Config, identity: Identity, checkpoint: Stored, storage: Storage, folder: RunFolder) -> Resumed:
    then = Identity.from_dict(checkpoint.json(f"{RUN}/{IDENTITY}"))
    progress = Progress.from_json(checkpoint.json(f"{RUN}/{PROGRESS}"))
    different = differences(then, identity, Config().flat())
    if different:
        raise ConfigError(
            f"{folder.path} cannot go on from step {progress.version}: {'; '.join(different)}. "
            "Change that back, or train it as a new run with another --run.name"
        )
    if config.run.steps < progress.version:
        raise ConfigError(
            f"{folder.path} has made {progress.version} steps, more than run.steps = {config.run.steps}: raise it"
        )
    _restore_records(checkpoint, folder, progress.version)
    due = progress.version in evaluation_versions(config) and progress.version not in progress.evaluations
    log.info("going on from step %d (%s)%s", progress.version, checkpoint, "; its evaluation comes first" * due)
    return Resumed(checkpoint, progress, _named(storage, progress.version))


def _restore_records(checkpoint: Stored, folder: RunFolder, version: int) -> None:
    kept = {name: f"{RUN}/{name}" for name in KEPT}
    for name in (FIRST_PREDICTIONS, STATE):  # older than any checkpoint; may know an MLflow run that was made after it
        if (folder.path / name).exists():
            del kept[name]
    files = {name: checkpoint.read(file) if checkpoint.has(file) else None for name, file in kept.items()}
    folder.restore(files, version)


def _named(storage: Storage, newest: int) -> dict[int, tuple[int, ...]]:
    """The whole checkpoints up to the one that is gone on from. Older ones that are not are removed: nobody else does.

    A process was killed while it removed them; later ones are written again when their step is.
    """
    named, half = {}, []
    for version in storage.versions(Kind.CHECKPOINT):
        if version <= newest:
            try:
                named[version] = storage.stored(Kind.CHECKPOINT, version).manifest.snapshots
            except Damaged:
                half.append(version)
    with removing(storage):
        storage.remove(Kind.CHECKPOINT, half)
    return named
