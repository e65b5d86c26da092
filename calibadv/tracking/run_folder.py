"""The folder of a run: runs/<name>/ with its configuration, metrics, sampled rollouts, plots, model and summary."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calibadv.files import write_bytes, write_text
from calibadv.json_lines import json_line, json_objects, read_json_lines
from calibadv.tracking import run_files
from calibadv.tracking.folder_lock import LOCK, OWNER, FolderLock, FolderLocked
from calibadv.tracking.follower import OPERATIONS, WRITTEN_MS
from calibadv.tracking.groups import forget_groups
from calibadv.tracking.journal import Journal
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.target import STATE, Target

log = logging.getLogger(__name__)

ONE_WRITER = "two runs cannot share a folder, choose another with --run.name or end that process"
_RUN_FILES = (run_files.CONFIG, run_files.METRICS, run_files.SUMMARY)
_OF_A_START = (STATE, OPERATIONS, run_files.OUTPUT)  # with empty folders all that is left by a start that fails early


class RunFolderError(ValueError):
    """The folder belongs to another run, a live one or one that has ended, or is no run's."""


class RunFolder:
    """Writes one run's files. Use as a context manager: it holds the folder's lock.

    A folder that holds a run is refused with `RunFolderError` unless `overwrite` or `resume`; one that a live process
    writes is refused always. `overwrite` empties the folder, `resume` leaves it as it is.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.path, ONE_WRITER)
        except FolderLocked as locked:
            raise RunFolderError(str(locked)) from None
        try:
            if overwrite and not resume:
                _empty(self.path)
            check_free(self.path, overwrite=overwrite, resume=resume)
        except BaseException:
            self._lock.close()
            raise
        self._metrics, self._rollouts = Journal(self.metrics), Journal(self.rollouts)

    @property
    def metrics(self) -> Path:
        return self.path / run_files.METRICS

    @property
    def rollouts(self) -> Path:
        return self.path / run_files.ROLLOUTS

    @property
    def predictions(self) -> Path:
        return self.path / run_files.PREDICTIONS

    @property
    def model(self) -> Path:
        return self.path / run_files.MODEL

    @property
    def summary(self) -> Path:
        return self.path / run_files.SUMMARY

    def write_config(self, toml: str) -> None:
        """Keep the whole configuration, defaults included, as TOML text."""
        (self.path / run_files.CONFIG).write_text(toml, encoding="utf-8")

    def append_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line {"step": …, metric: value…}; what is not finite is left out. A full disk raises nothing."""
        finite = {name: value for name, value in values.items() if name != "step" and math.isfinite(value)}
        self._metrics.append([{"step": step, **finite}])

    def append_rollouts(self, records: Iterable[RolloutRecord]) -> None:
        """Append sampled rollouts, a JSON object a line with the Unix time. A full disk raises nothing."""
        now_ms = time.time_ns() // 1_000_000
        self._rollouts.append({**record.to_dict(), WRITTEN_MS: now_ms} for record in records)

    def append_restart(self, why: str) -> None:
        """Append that the run starts again by itself."""
        Journal(self.path / run_files.RESTARTS).append([{"time": time.strftime("%Y-%m-%d %H:%M:%S"), "why": why}])

    def write_predictions(self, predictions: Iterable[Mapping[str, Any]], *, first: bool = False) -> None:
        """The latest evaluation's answers, a JSON object a line; an earlier one's are replaced.

        `first`: those of the evaluation before training, which are kept beside for intervals of what changed.
        """
        lines = "".join(map(json_line, predictions))
        for path in (self.predictions, *([self.path / run_files.FIRST_PREDICTIONS] if first else [])):
            try:
                write_text(path, lines)
            except OSError as error:
                log.warning("%s cannot be written (%s): it stays as it was", path, error)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json last, in one move: its presence says that the run finished."""
        write_text(self.summary, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")

    def restore(self, files: Mapping[str, bytes | None], version: int) -> None:
        """Puts back the files of an earlier moment by their names (None: there was none); no longer finished.

        `version`: steps that were made by then.
        """
        forget_groups(self.path / run_files.GROUPS, version)
        self._metrics.forget()
        self._rollouts.forget()
        for name, content in files.items():
            if content is None:
                (self.path / name).unlink(missing_ok=True)
            else:
                write_bytes(self.path / name, content)
        if (target := Target.read(self.path)) is not None:  # now: later the files may have outgrown what is remembered
            target.cut_to(self.path).write(self.path)
        self.summary.unlink(missing_ok=True)

    def history(self) -> list[dict[str, float]]:
        """All lines of metrics.jsonl; of a step logged twice (a resumed run) the later values win."""
        return _by_step(json_objects(self._metrics.content() or b"", self.metrics))

    def content(self, name: str) -> bytes | None:
        """A file of the folder with every line that was appended, written yet or not; None if there is none."""
        for journal in (self._metrics, self._rollouts):
            if journal.path.name == name:
                return journal.content()
        path = self.path / name
        return path.read_bytes() if path.exists() else None

    def close(self) -> None:
        """Give the folder's lock back."""
        try:
            self._metrics.close()
            self._rollouts.close()
        finally:
            self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_free(path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """`RunFolderError` if a run is in the folder already, unless it may be overwritten or is gone on with."""
    if overwrite or resume:
        return
    remedy = "choose another with --run.name, or replace it with --run.overwrite true"
    if (path / run_files.SUMMARY).exists():
        raise RunFolderError(f"{path.resolve()} holds a finished run: {remedy}")
    if (path / run_files.METRICS).exists():
        raise RunFolderError(
            f"{path.resolve()} holds a run that has not finished: go on with it by the same command with --resume, "
            f"{remedy}"
        )


def read_history(metrics: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl by step, ascending; lines of one step are merged, a torn last line is skipped."""
    return _by_step(read_json_lines(metrics))


def _by_step(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    by_step: dict[float, dict[str, float]] = {}
    for values in lines:
        by_step.setdefault(values["step"], {}).update(values)
    return [by_step[step] for step in sorted(by_step)]


def _empty(folder: Path) -> None:
    children = [child for child in folder.iterdir() if child.name not in (LOCK, OWNER)]
    if not any(child.name in _RUN_FILES for child in children) and not all(map(_of_a_start, children)):
        raise RunFolderError(
            f"{folder} holds none of {', '.join(_RUN_FILES)}: it is no run, so --run.overwrite true leaves it alone; "
            "choose another with --run.name"
        )
    for child in children:
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _of_a_start(path: Path) -> bool:
    return not any(path.iterdir()) if path.is_dir() else path.name in _OF_A_START
