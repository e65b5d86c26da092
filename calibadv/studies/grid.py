"""From a study to its runs: one checked configuration a cell and seed, all comparable, each in a folder of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibadv.config import NOTHING, Config, ConfigError, decides, load_config
from calibadv.section import Decides, flat
from calibadv.studies.study import Cell, Study
from calibadv.tracking.database import store_uri
from calibadv.tracking.run_files import CONFIG, SUMMARY

log = logging.getLogger(__name__)

# Said by the grid itself: a setting of the same would be overwritten, or make two runs share a folder.
_OF_THE_GRID = {
    "run.name": "a run is called <cell>-seed<seed>",
    "run.seed": "give `seeds`",
    "run.overwrite": "finished runs are kept, unfinished ones are run anew",
    "method.name": "give the cell's `method`",
}


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A cell under one seed."""

    cell: Cell
    config: Config

    @property
    def name(self) -> str:
        return self.config.run_name

    @property
    def folder(self) -> Path:
        return self.config.run.folder / self.name

    @property
    def seed(self) -> int:
        return self.config.run.seed

    def told(self, day: str) -> PlannedRun:
        """The run with this `rollout.date`, unless the study names one."""
        rollout = self.config.rollout.model_copy(update={"date": self.config.rollout.date or day})
        return replace(self, config=self.config.model_copy(update={"rollout": rollout}))


@dataclass(frozen=True, slots=True)
class Plan:
    """All runs of a study, cell by cell, and the folder that holds theirs."""

    study: Study
    folder: Path
    runs: tuple[PlannedRun, ...]

    def of_cell(self, cell: Cell) -> list[PlannedRun]:
        """The cell's runs, by seed."""
        return [run for run in self.runs if run.cell == cell]


def plan_study(study: Study, overrides: Mapping[str, Any] = NOTHING) -> Plan:
    """Every run's configuration: recipe, then the study's settings, the cell's, and the command line's `overrides`.

    Raises `ConfigError` for a configuration that is refused, and for a cell that cannot be compared with the others.
    """
    for key in overrides:
        _refuse_grid_key(key, "the command line")
    runs = tuple(
        PlannedRun(cell, _config(study, cell, seed, overrides)) for cell in study.cell for seed in study.seeds_of(cell)
    )
    _check_comparable(runs)
    return Plan(study, runs[0].config.run.folder, runs)


def what_is_compared(config: Config) -> dict[str, Any]:
    """What must be equal for two cells to be comparable: questions, model, steps and optimizer updates."""
    return {
        **_settings(config, Decides.TASK, Decides.CONTENT),
        "updates a step (data.questions_per_step x rollout.samples / learner.minibatch_rollouts x learner.passes)": (
            config.updates_per_step
        ),
    }


def same_run(one: Config, other: Config) -> bool:
    """Whether two configurations compute the same, wherever they write and however they are scheduled."""
    what = set(Decides) - {Decides.PLACE}
    return _settings(one, *what) == _settings(other, *what)


def _settings(config: Config, *what: Decides) -> dict[str, Any]:
    """The settings that decide this, by their dotted names."""
    return {key: value for key, value in config.flat().items() if decides(key) in what}


def check_finished(run: PlannedRun) -> bool:
    """Whether the run is finished and need not be run again; ValueError if it was run under another configuration."""
    if not (run.folder / SUMMARY).exists():
        return False
    there = load_config(run.folder / CONFIG)
    if not same_run(there, run.told(there.rollout.date).config):  # the day that it began on is no other configuration
        raise ValueError(
            f"{run.folder} was run under another configuration than the study asks for now (its {CONFIG} says "
            "which): delete the folder to run it again, or give the study or the cell another name"
        )
    return True


def day_of(finished: Iterable[PlannedRun]) -> str:
    """The day that prompts of these runs were told, for those to come; "" where their templates write none."""
    kept = (load_config(run.folder / CONFIG).rollout.date for run in finished if not run.config.rollout.date)
    days = sorted({day for day in kept if day})
    if len(days) > 1:
        log.warning("finished runs were told different days (rollout.date): %s; those to come %s", days, days[0])
    return days[0] if days else ""


def _config(study: Study, cell: Cell, seed: int, overrides: Mapping[str, Any]) -> Config:
    where = f"cell {cell.name!r}"
    settings = dict(_flat(study.settings, "[settings]")) | dict(_flat(cell.settings, where))
    method = {"method.name": cell.method, **flat(cell.params, "method.params.")}
    try:
        config = load_config(study.recipe, settings | method | dict(overrides))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    runs = config.run.folder.absolute()
    run = config.run.model_copy(
        update={
            "name": f"{cell.name}-seed{seed}",
            "folder": runs / study.name,
            "cache": config.run.cache.absolute(),  # trials may have another working folder
            "seed": seed,
            "overwrite": True,
        }
    )
    # Beside the folder of studies, so that the runs of several studies and single runs are compared on one page.
    uri = config.tracking.mlflow_uri or store_uri(runs)
    tracking = config.tracking.model_copy(update={"mlflow_uri": uri})
    # An unfinished run of a study is run anew: it needs no checkpoints, which would be kept beside every finished one.
    checkpoint = config.checkpoint.model_copy(update={"every": 0})
    return config.model_copy(update={"run": run, "tracking": tracking, "checkpoint": checkpoint})


def _flat(settings: Mapping[str, Mapping[str, Any]], where: str) -> Iterator[tuple[str, Any]]:
    for key, value in flat(settings).items():
        _refuse_grid_key(key, where)
        yield key, value


def _refuse_grid_key(key: str, where: str) -> None:
    if key in _OF_THE_GRID:
        raise ConfigError(f"{where} sets {key!r}, which the study decides: {_OF_THE_GRID[key]}")


def _check_comparable(runs: Sequence[PlannedRun]) -> None:
    bound = [run for run in runs if not run.cell.allow_different]
    for key in what_is_compared(runs[0].config):
        values = {run.cell.name: what_is_compared(run.config)[key] for run in bound}
        if len(set(values.values())) < 2:
            continue
        usual, _ = Counter(values.values()).most_common(1)[0]
        name, odd = next((name, value) for name, value in values.items() if value != usual)
        raise ConfigError(
            f"cell {name!r} has {key} = {odd!r}, the other cells have {usual!r}: they cannot be compared; give it the "
            "same value, or set allow_different = true in the cell"
        )
