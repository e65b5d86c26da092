"""What a report reads of a run's folder: everything that is there, and nothing that must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibadv.checkpoints.manifest import MANIFEST, Damaged, Manifest
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.config import Config, load_config
from calibadv.evaluation.prediction import Prediction, read_predictions
from calibadv.json_lines import read_json_lines
from calibadv.tracking import run_files
from calibadv.tracking.groups import StoredStep, read_groups, stored_steps
from calibadv.tracking.run_folder import read_history
from calibadv.tracking.series import History


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A checkpoint that is there whole."""

    version: int
    bytes: int
    files: int
    written_s: float  # seconds since the epoch
    snapshots: tuple[int, ...]  # that the sentinel may go back to from here


@dataclass(frozen=True, slots=True)
class RunFiles:
    """A run as its folder is now."""

    name: str
    config: Config
    history: History
    summary: Mapping[str, Any] | None  # None: it has not finished
    first_answers: Mapping[str, Prediction]  # of the evaluation before training, by question; {} where it kept none
    answers: Mapping[str, Prediction]  # of the newest evaluation
    restarts: Sequence[Mapping[str, str]]  # when, and why
    checkpoints: Sequence[KeptCheckpoint]
    groups_steps: Sequence[int]  # steps of which groups are stored
    folder: Path

    def stored(self, steps: Sequence[int]) -> Iterator[StoredStep]:
        """The stored groups of these steps, one step after the other."""
        return read_groups(self.folder, steps) if steps else iter(())


def read_run(folder: Path) -> RunFiles:
    """The run in `folder`, finished or not. ValueError where it holds none, or none that has made a step."""
    if not run_files.is_run(folder):
        raise ValueError(f"{folder} is no run's folder: it has no {run_files.CONFIG}; name a folder runs/<name>")
    history = read_history(folder / run_files.METRICS)
    if not history:
        raise ValueError(f"{folder} has no {run_files.METRICS} with a step in it: there is nothing to report yet")
    return RunFiles(
        folder.resolve().name,
        load_config(folder / run_files.CONFIG),
        history,
        run_files.read_summary(folder),
        read_predictions(folder / run_files.FIRST_PREDICTIONS),
        read_predictions(folder / run_files.PREDICTIONS),
        read_json_lines(folder / run_files.RESTARTS),
        _checkpoints(folder / run_files.CHECKPOINTS),
        tuple(stored_steps(folder / run_files.GROUPS)),
        folder,
    )


def _checkpoints(folder: Path) -> list[KeptCheckpoint]:
    """Those in the run's own folder; of one that keeps them elsewhere nothing is known here."""
    found, storage = [], Storage(str(folder.resolve()))
    for version in storage.versions(Kind.CHECKPOINT):
        try:
            stored = storage.stored(Kind.CHECKPOINT, version)
        except Damaged:
            continue
        manifest: Manifest = stored.manifest
        written_s = (folder / stored.name / MANIFEST).stat().st_mtime
        size = sum(entry.bytes for entry in manifest.files.values())
        found.append(KeptCheckpoint(version, size, len(manifest.files), written_s, manifest.snapshots))
    return found
