"""Several runs beside each other: those that differ by their seed alone are one cell, with a band over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from calibadv.config import decides
from calibadv.methods import all_params
from calibadv.report.reading import RunFiles
from calibadv.section import Decides
from calibadv.tracking.series import History, collapse_point, mean_and_spread, series

_MEASURED = "eval/"  # metrics of evaluations: few values, which are not smoothed


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure over the seeds of a cell: its mean and, with two seeds or more, its unbiased deviation."""

    mean: float
    std: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """Runs that differ by their seed alone, and by where and how fast they were made."""

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    unfinished: int  # runs whose newest evaluation may be one in between, of fewer questions
    f1: Figure | None  # of the newest evaluation
    em: Figure | None
    format: Figure | None
    searches: Figure | None
    tokens: Figure | None  # sampled in all steps
    wall_s: Figure | None  # of finished runs
    collapses: tuple[int | None, ...]
    curves: Mapping[str, list[list[float]]]  # metric -> rows (step, mean, low, high)


def cells_of(runs: Sequence[RunFiles]) -> list[Cell]:
    """The cells, in the order of their first runs. Equal methods with other settings are other cells."""
    grouped: dict[str, list[RunFiles]] = {}
    for run in runs:
        grouped.setdefault(_cell_name(run, runs), []).append(run)
    return [_cell(name, members) for name, members in grouped.items()]


def _cell(name: str, runs: Sequence[RunFiles]) -> Cell:
    histories = [run.history for run in runs]
    metrics = sorted({metric for history in histories for row in history for metric in row if metric != "step"})
    return Cell(
        name,
        tuple(run.name for run in runs),
        tuple(run.config.run.seed for run in runs),
        sum(run.summary is None for run in runs),
        _figure([_last(history, "eval/f1") for history in histories]),
        _figure([_last(history, "eval/em") for history in histories]),
        _figure([_last(history, "eval/format") for history in histories]),
        _figure([_last(history, "eval/searches") for history in histories]),
        _figure([_total(history, "rollout/tokens_sampled") for history in histories]),
        _figure([None if run.summary is None else float(run.summary["wall_s"]) for run in runs]),
        tuple(collapse_point(history) for history in histories),
        {metric: curve for metric in metrics if (curve := _band(histories, metric))},
    )


def _band(histories: Sequence[History], metric: str) -> list[list[float]]:
    steps, mean, spread = mean_and_spread(histories, metric, smooth=not metric.startswith(_MEASURED))
    low, high = (mean, mean) if spread is None else (mean - spread, mean + spread)
    rows = zip(steps.tolist(), mean.tolist(), low.tolist(), high.tolist(), strict=True)
    return [[float(f"{value:.5g}") for value in row] for row in rows]


def _cell_name(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    """The method's name, and on what its runs differ: its parameters, and all settings that decide what comes out."""
    method, own = run.config.method.name, _settings(run)
    alike = [_settings(other) for other in runs if other.config.method.name == method]
    differ = [name for name in own if len({str(settings.get(name)) for settings in alike}) > 1]
    return " ".join([method, *(f"{name}={own[name]}" for name in differ)])


def _settings(run: RunFiles) -> dict[str, Any]:
    """What a run's result depends on beside its seed and its method's name, whose parameters have their own names."""
    values = run.config.flat()
    kept = {
        key: value
        for key, value in values.items()
        if not key.startswith("method.") and key != "run.seed" and decides(key) not in (Decides.PLACE, Decides.MEANS)
    }
    return {**all_params(run.config.method.name, run.config.method.params), **kept}


def _figure(values: Sequence[float | None]) -> Figure | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Figure(fmean(known), stdev(known) if len(known) > 1 else None)


def _last(history: History, metric: str) -> float | None:
    _, values = series(history, metric)
    return float(values[-1]) if len(values) else None


def _total(history: History, metric: str) -> float | None:
    _, values = series(history, metric)
    return float(values.sum()) if len(values) else None
