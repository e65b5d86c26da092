"""The folder of a run: runs/<name>/ with its configuration, metrics, sampled rollouts, plots, model and summary."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calibadv.tracking.folder_lock import FolderLock, FolderLocked
from calibadv.tracking.record import RolloutRecord

log = logging.getLogger(__name__)

LOCK = ".lock"
CHECKPOINTS = "checkpoints"  # the folder in it, unless they have a place of their own
_RUN_FILES = ("config.toml", "metrics.jsonl", "summary.json")


class RunFolderError(ValueError):
    """The folder belongs to another run, a live one or one that has ended, or is no run's."""


class RunFolder:
    """Writes one run's files. Use as a context manager: it holds the folder's lock.

    A folder that holds a run is refused with `RunFolderError` unless `overwrite` or `resume`; one that a live process
    writes is refused always. `overwrite` empties the folder, `resume` leaves it as it is.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.path = path.resolve()
        remedy = "choose another with --run.name, or replace it with --run.overwrite true"
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.path / LOCK)
        except FolderLocked as locked:
            raise RunFolderError(str(locked)) from None
        try:
            if overwrite and not resume:
                _empty(self.path)
            elif self.summary.exists() and not resume:
                raise RunFolderError(f"{self.path} holds a finished run: {remedy}")
            elif self.metrics.exists() and not resume:
                raise RunFolderError(
                    f"{self.path} holds a run that has not finished: go on with it by the same command with --resume, "
                    f"{remedy}"
                )
            self.plots.mkdir(exist_ok=True)
        except BaseException:
            self._lock.close()
            raise

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts.jsonl"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.jsonl"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def write_config(self, toml: str) -> None:
        """Keep the whole configuration, defaults included, as TOML text."""
        self.config.write_text(toml, encoding="utf-8")

    def append_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line {"step": …, metric: value…}; what is not finite is left out."""
        finite = {name: value for name, value in values.items() if name != "step" and math.isfinite(value)}
        _append(self.metrics, [{"step": step, **finite}])

    def append_rollouts(self, records: Iterable[RolloutRecord]) -> None:
        """Append sampled rollouts, a JSON object a line."""
        _append(self.rollouts, [record.to_dict() for record in records])

    def write_predictions(self, predictions: Iterable[Mapping[str, Any]]) -> None:
        """The latest evaluation's answers, a JSON object a line; an earlier one's are replaced."""
        draft = self.predictions.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        _append(draft, predictions)
        draft.replace(self.predictions)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json last, in one move: its presence says that the run finished."""
        draft = self.summary.with_suffix(".tmp")
        draft.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(self.summary)

    def go_back(self, files: Mapping[str, bytes | None]) -> None:
        """Puts back the files of an earlier moment by their names (None: there was none); no longer finished."""
        for name, content in files.items():
            if content is None:
                (self.path / name).unlink(missing_ok=True)
                continue
            draft = self.path / f"{name}.tmp"
            draft.write_bytes(content)
            draft.replace(self.path / name)
        self.summary.unlink(missing_ok=True)

    def history(self) -> list[dict[str, float]]:
        """All lines of metrics.jsonl; of a step logged twice (a resumed run) the later values win."""
        return read_history(self.metrics)

    def close(self) -> None:
        """Give the folder's lock back."""
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_history(metrics: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl by step, ascending; lines of one step are merged, a torn last line is skipped."""
    by_step: dict[float, dict[str, float]] = {}
    for values in read_json_lines(metrics):
        by_step.setdefault(values["step"], {}).update(values)
    return [by_step[step] for step in sorted(by_step)]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, [] if it is missing; lines cut by a crash are skipped with a warning."""
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: line %d is not JSON (cut by a crash?), skipped", path, number)
    return values


def _append(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _empty(folder: Path) -> None:
    children = [child for child in folder.iterdir() if child.name != LOCK]
    if children and not any(child.name in _RUN_FILES for child in children):
        raise RunFolderError(
            f"{folder} holds none of {', '.join(_RUN_FILES)}: it is no run, so --run.overwrite true leaves it alone; "
            "choose another with --run.name"
        )
    for child in children:
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
