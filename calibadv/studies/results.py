"""What a study's runs came to, read from their folders alone: state, history, figures at the end and their spread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from calibadv.evaluation.figures import bootstrap_means, percentile_interval
from calibadv.json_lines import read_json_lines
from calibadv.methods import all_params
from calibadv.studies.grid import Plan, PlannedRun
from calibadv.studies.study import Cell
from calibadv.tracking.run_files import METRICS, PREDICTIONS, read_summary
from calibadv.tracking.run_folder import read_history
from calibadv.tracking.series import BENCHMARKS, History, collapse_point, series

NONE = "–"  # nothing was measured, or there is no second seed to tell a spread from
FAILURES = "failures"  # in the study's folder: why a run failed, a text file a run


class State(StrEnum):
    """How far a run is."""

    DONE = "done"
    FAILED = "failed"
    UNFINISHED = "unfinished"  # runs now, or was interrupted: its files do not tell
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and unbiased standard deviation of a figure over seeds; None where there is nothing to take it of."""

    mean: float | None
    std: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of the values; no deviation for a single one."""
        return Spread(fmean(values) if values else None, stdev(values) if len(values) > 1 else None)

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """As `mean ± std`, both times `scale`."""
        if self.mean is None:
            return NONE
        spread = "" if self.std is None else f" ± {scale * self.std:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{spread}"


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run as its folder shows it."""

    run: PlannedRun
    state: State
    history: History
    summary: Mapping[str, Any]  # {} unless done
    f1_by_question: Mapping[str, float]  # of the last evaluation; {} where no predictions.jsonl was written
    failure: str = ""

    def final(self, name: str) -> float | None:
        """A figure of the last evaluation: f1, em, format (in [0, 1]) or searches (a rollout). None unless done."""
        value = self.summary.get(f"{name}_after")
        return None if value is None else float(value)

    def benchmarks(self) -> dict[str, float]:
        """Final F1 by data set, and their "mean", in [0, 1]; {} where the test questions are of one."""
        last = next((row for row in reversed(self.history) if any(name.startswith(BENCHMARKS) for name in row)), {})
        return {name.removeprefix(BENCHMARKS): value for name, value in last.items() if name.startswith(BENCHMARKS)}

    def collapse(self) -> int | None:
        """The training step at which F1 falls for good; None where it does not."""
        return collapse_point(self.history)

    def total(self, metric: str) -> float | None:
        """The metric's sum over steps; None where no step has it."""
        _, values = series(self.history, metric)
        return float(values.sum()) if len(values) else None


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell with its runs, by seed."""

    cell: Cell
    runs: tuple[RunResult, ...]

    @property
    def done(self) -> list[RunResult]:
        return [run for run in self.runs if run.state is State.DONE]

    @property
    def lam(self) -> float | None:
        """The method's `lam`, given or by default; None for a method without one."""
        value = all_params(self.cell.method, self.cell.params).get("lam")
        return float(value) if isinstance(value, int | float) else None

    def finals(self, name: str) -> list[float]:
        """A figure of the last evaluation, a value a finished run."""
        return [value for run in self.done if (value := run.final(name)) is not None]

    def totals(self, metric: str) -> list[float]:
        """The metric's sum over steps, a value a finished run that has it."""
        return [value for run in self.done if (value := run.total(metric)) is not None]

    def in_state(self, state: State) -> int:
        """How many runs are in it."""
        return sum(run.state is state for run in self.runs)


def read_results(plan: Plan) -> list[CellResult]:
    """Every cell of the study, as its runs' folders are now."""
    return [
        CellResult(cell, tuple(read_run(plan.folder, run) for run in plan.of_cell(cell))) for cell in plan.study.cell
    ]


def read_run(study_folder: Path, run: PlannedRun) -> RunResult:
    """One run, as its folder is now."""
    summary = read_summary(run.folder)
    failure = failure_file(study_folder, run)
    history = read_history(run.folder / METRICS)
    if summary is not None:
        answers = read_json_lines(run.folder / PREDICTIONS)
        f1 = {str(line["id"]): float(line["f1"]) for line in answers if line["f1"] is not None}
        return RunResult(run, State.DONE, history, summary, f1)
    if failure.exists():
        return RunResult(run, State.FAILED, history, {}, {}, failure.read_text(encoding="utf-8").strip())
    return RunResult(run, State.UNFINISHED if history else State.WAITING, history, {}, {})


def failure_file(study_folder: Path, run: PlannedRun) -> Path:
    """Where the reason of a run's failure is kept; it outlives the run's folder, which may never have been made."""
    return study_folder / FAILURES / f"{run.name}.txt"


def bootstrap_f1(f1_by_question: Iterable[Mapping[str, float]]) -> tuple[float, float] | None:
    """95 % interval of the mean F1 over questions, in [0, 1]; one mapping a seed. None without values.

    Questions are drawn with replacement, each with the F1 of all seeds: two seeds' answers to one question are no two
    observations. So it tells what other questions would change, not what other seeds would (that is the ± over seeds).
    """
    pooled: dict[str, list[float]] = {}
    for answers in f1_by_question:
        for question, f1 in answers.items():
            pooled.setdefault(question, []).append(f1)
    if not pooled:
        return None
    means_Q = np.asarray([np.mean(pooled[question]) for question in sorted(pooled)])
    return percentile_interval(bootstrap_means(means_Q))
