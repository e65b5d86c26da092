"""Percentile bootstrap over questions: how far a mean would move, had other questions been asked.

Array legend: Q questions, M measures of a question, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def bootstrap_means(values_QM: Doubles, *, draws: int = 10_000, seed: int | Sequence[int] = 0) -> Doubles:
    """Means over the questions of `draws` resamples [D, M]; [D] for values [Q] of a single measure.

    Questions are drawn with replacement; all measures see the same draws. ValueError without a question or a draw.
    """
    questions = len(values_QM)
    if not questions or draws < 1:
        raise ValueError(f"{questions} questions, {draws} draws: expected at least one of each")
    rng = np.random.default_rng(seed)
    return np.asarray([values_QM[rng.integers(questions, size=questions)].mean(axis=0) for _ in range(draws)])


def percentile_interval(means_D: Doubles, level: float = 0.95) -> tuple[float, float]:
    """The interval that holds the middle `level` of the draws; a single value twice where they are all equal."""
    low, high = np.quantile(means_D, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_of_means_interval(
    sets: Sequence[Doubles], *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean over data sets of their means; `sets` are values [Q], a data set each, at least one.

    Each set is resampled by itself: its size is given, and it weighs as much as any other in the mean.
    """
    means_SD = [bootstrap_means(values_Q, draws=draws, seed=(seed, index)) for index, values_Q in enumerate(sets)]
    return percentile_interval(np.mean(means_SD, axis=0), level)
