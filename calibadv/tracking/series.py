"""Metrics over steps, taken from a run's history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calibadv.collapse import collapse_step

BENCHMARKS = "eval/f1_"  # and the name of a data set, or "mean"
History = Sequence[Mapping[str, float]]
"""A dict a step, as in metrics.jsonl; each has "step"."""
Array = NDArray[np.float64]


def series(history: History, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a metric; steps without it are left out."""
    rows = [(row["step"], row[metric]) for row in history if metric in row]
    steps, values = zip(*rows, strict=True) if rows else ((), ())
    return np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)


def collapse_point(history: History) -> int | None:
    """The training step at which F1 in training falls clearly and for good (CalibAdv sec. 4.1.1); None without such."""
    steps, values = series([row for row in history if row["step"] > 0], "reward/f1")
    index = collapse_step(values.tolist())
    return None if index is None else int(steps[index])


def has_any(history: History, metrics: Iterable[str]) -> bool:
    """Whether a step carries one of these metrics."""
    wanted = set(metrics)
    return any(wanted & row.keys() for row in history)


def names(history: History, prefix: str) -> list[str]:
    """Every metric of the history that starts with `prefix`, sorted."""
    return sorted({metric for row in history for metric in row if metric.startswith(prefix)})


def running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean over about a tenth of the series (3 to 21 values), shorter at its ends; same length."""
    half = int(np.clip(len(values) * 0.1, 3, 21)) // 2
    return np.asarray([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


def mean_and_spread(histories: Sequence[History], metric: str, *, smooth: bool) -> tuple[Array, Array, Array | None]:
    """Steps that every history has the metric at, its mean there, and the deviation over seeds (None for one seed).

    Unbiased. Each seed is smoothed before the mean is taken, so that the band tells seeds apart, not steps.
    """
    rows = []
    for history in histories:
        steps, values = series(history, metric)
        if len(steps):
            rows.append(dict(zip(steps.tolist(), (running_mean(values) if smooth else values).tolist(), strict=True)))
    shared = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    values_SK = np.asarray([[row[step] for step in shared] for row in rows], dtype=np.float64)
    steps_K = np.asarray(shared, dtype=np.float64)
    if not shared:
        return steps_K, steps_K, None
    return steps_K, values_SK.mean(axis=0), values_SK.std(axis=0, ddof=1) if len(rows) > 1 else None
