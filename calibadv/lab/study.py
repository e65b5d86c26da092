"""A laboratory study: cells x seeds from one TOML file, made side by side, resumable.

    name = "learning"
    seeds = [0, 1, 2]
    baseline = "GRPO"              # the cell that the report holds the others against; a list: each of them
    [run]                          # what all cells share, see `LabRun`
    lr = 5e-4
    [[cell]]
    name = "CalibAdv"
    method = "calibadv"
    [[cell]]
    name = "negatives x {negative:g}, top_p {top_p:g}"     # with `vary` a cell becomes one for each combination
    method = "scaled"
    vary = { "params.negative" = [1.0, 2.0], top_p = [1.0, 0.95] }

A cell may have `seeds` of its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calibadv.config import read_toml
from calibadv.lab.settings import LabRun


class StudyFile(BaseModel):
    """What the TOML file may hold."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seeds: list[int] = Field(min_length=1)
    baseline: str | list[str] = []  # cells
    run: dict[str, Any] = Field(default_factory=dict)
    cell: list[dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True)
class Planned:
    """One run of a study."""

    cell: str
    run: LabRun

    @property
    def folder(self) -> str:
        """Its folder's name below the study's."""
        return f"{re.sub(r'[^A-Za-z0-9.=_-]+', '-', self.cell)}-s{self.run.seed}"


@dataclass(frozen=True)
class Study:
    """Every run of a study, all cells of the first seed before those of the next."""

    name: str
    runs: tuple[Planned, ...]
    baselines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """What became of a planned run: its steps and CPU seconds, or what went wrong."""

    planned: Planned
    steps: int = 0
    reason: str = ""
    cpu_seconds: float = 0.0
    error: str = ""


def load_study(path: Path) -> Study:
    """ValueError, naming file and cell, for what is no study, and for two runs that would share a folder."""
    try:
        file = StudyFile.model_validate(read_toml(path, "study", "workflows/studies/lab-mismatch.toml"))
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}") from None
    cells = [cell for given in file.cell for cell in _cells(path, file, given)]
    # Stable: within a seed the cells keep the file's order, and what a stopped study has is balanced.
    runs = sorted((planned for cell in cells for planned in cell), key=lambda planned: planned.run.seed)
    folders = [planned.folder for planned in runs]
    if twice := sorted({folder for folder in folders if folders.count(folder) > 1}):
        raise ValueError(f"{path}: two runs are called {twice[0]!r}: give the cells different names")
    names = {planned.cell for planned in runs}
    baselines = (file.baseline,) if isinstance(file.baseline, str) else tuple(file.baseline)
    if strange := [name for name in baselines if name not in names]:
        raise ValueError(f"{path}: baseline = {strange[0]!r} is no cell; cells: {', '.join(sorted(names))}")
    return Study(file.name, tuple(runs), baselines)


def _cells(path: Path, file: StudyFile, given: dict[str, Any]) -> Iterator[list[Planned]]:
    """The runs of each combination of what the cell varies."""
    cell = dict(given)
    name, vary, seeds = str(cell.pop("name", "")), cell.pop("vary", {}), cell.pop("seeds", file.seeds)
    for values in itertools.product(*vary.values()):
        chosen = dict(zip(vary, values, strict=True))
        settings = {**file.run, **cell, "params": {**file.run.get("params", {}), **cell.get("params", {})}}
        for key, value in chosen.items():
            if key.startswith("params."):
                settings["params"][key.removeprefix("params.")] = value
            else:
                settings[key] = value
        told = _told(path, name or cell.get("method", "grpo"), {k.split(".")[-1]: v for k, v in chosen.items()})
        try:
            yield [Planned(told, LabRun.model_validate({**settings, "seed": seed})) for seed in seeds]
        except ValidationError as error:
            raise ValueError(f"{path}: cell {told!r}: {_first(error)}") from None


def _told(path: Path, name: str, chosen: dict[str, Any]) -> str:
    """The cell's name: what it varies in the name's braces, or behind the name."""
    if "{" not in name:
        return " ".join([name, *(f"{key}={value}" for key, value in chosen.items())])
    try:
        return name.format(**chosen)
    except (KeyError, IndexError, ValueError) as error:
        keys = ", ".join(chosen) or "nothing, for it has no `vary`"
        raise ValueError(f"{path}: cell {name!r}: {error}; expected braces of what it varies: {keys}") from None


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']} (got {problem['input']!r})"


def run_study(runs: Sequence[Planned], folder: Path, *, jobs: int = 2) -> Iterator[Made]:
    """Makes the runs that are not finished, `jobs` at a time, each in a process of its own; yields runs as they end.

    Called again it goes on; a run that failed is tried again. Closing the iterator ends the runs under way, which go on
    from their checkpoints next time.
    """
    # Read when a process starts: its memory comes in huge pages, with which a run made 1.5 times the steps a CPU second
    # on a virtual machine whose memory lay in small ones.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_alone)
    try:
        waiting = {pool.submit(_make, folder / planned.folder, planned): planned for planned in runs}
        for future in as_completed(waiting):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _alone() -> None:
    os.nice(10)  # a study runs for hours beside other work


def _make(folder: Path, planned: Planned) -> Made:
    from calibadv.lab.run import run_in  # torch: only where a run is made

    try:
        ended = run_in(folder, planned.run)
    except Exception as error:
        return Made(planned, error=f"{type(error).__name__}: {error}")
    return Made(planned, ended.steps, ended.reason, ended.cpu_seconds)
