"""How far a figure can be trusted: its spread over seeds, and over the questions that were asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from calibadv.evaluation.figures import bootstrap_means, percentile_interval

NONE = "–"  # nothing was measured, or there is no second seed to tell a spread from


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


def bootstrap_f1(
    f1_by_question: Iterable[Mapping[str, float]], *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of the mean F1 over questions, in [0, 1]; one mapping a seed. None without values.

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
    return percentile_interval(bootstrap_means(means_Q, draws=draws, seed=seed), level)
