"""The figures of a model on a set of questions, from its predictions: means, intervals, and parts by hops and type.

Array legend: Q scored questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from calibadv.diagnostics import high_ppl_ratio
from calibadv.evaluation.bootstrap import Doubles, bootstrap_means, mean_of_means_interval, percentile_interval
from calibadv.evaluation.prediction import Prediction

DRAWS = 2_000  # an interval's ends then vary by some 4 % of its half-width, and seven benchmarks cost seconds
SCORES = ("f1", "em", "cover_em", "format")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions and its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Part:
    """Means over the scored questions of one number of hops, or of one type."""

    questions: int
    f1: float
    em: float
    cover_em: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Scores are in [0, 1] and, as all means, over scored questions; None where there is none."""

    questions: int
    infra_failed: int  # of them, never scored
    truncated: int
    f1: Estimate | None
    em: Estimate | None
    cover_em: Estimate | None
    format: Estimate | None
    searches: float | None  # a question
    tokens: float | None  # sampled, a question
    high_ppl_ratio: float | None
    by_hops: dict[str, Part]
    by_type: dict[str, Part]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """Every number under its name, intervals as `f1_low` and `f1_high`; what is None is absent."""
        named: dict[str, float | None] = {
            name: getattr(self, name) for name in ("questions", "infra_failed", "truncated")
        }
        for name in SCORES:
            estimate: Estimate | None = getattr(self, name)
            if estimate is not None:
                named |= {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        named |= {"searches": self.searches, "tokens": self.tokens, "high_ppl_ratio": self.high_ppl_ratio}
        return {name: float(value) for name, value in named.items() if value is not None}


def figures(predictions: Sequence[Prediction]) -> Figures:
    """The figures of all predictions of a set. Equal predictions in equal order give equal figures."""
    scored = [p for p in predictions if not p.infra_failed]
    return Figures(
        questions=len(predictions),
        infra_failed=len(predictions) - len(scored),
        truncated=sum(p.truncated for p in scored),
        **_estimates(scored),
        searches=_mean(p.searches for p in scored),
        tokens=_mean(p.tokens for p in scored),
        high_ppl_ratio=high_ppl_ratio(p.perplexity for p in scored),
        by_hops=_parts(scored, lambda p: p.hops),
        by_type=_parts(scored, lambda p: p.type),
    )


def mean_f1(sets: Sequence[Sequence[Prediction]]) -> Estimate | None:
    """The mean over sets of their mean F1, each set weighing the same (CalibAdv table 1); None if one has no score."""
    values = [_values(predictions, "f1") for predictions in sets]
    if not values or not all(len(values_Q) for values_Q in values):
        return None
    low, high = mean_of_means_interval(values, draws=DRAWS)
    return Estimate(fmean(float(values_Q.mean()) for values_Q in values), low, high)


def _estimates(scored: Sequence[Prediction]) -> dict[str, Estimate | None]:
    if not scored:
        return dict.fromkeys(SCORES)
    values_QM = np.stack([_values(scored, name) for name in SCORES], axis=1)
    means_DM = bootstrap_means(values_QM, draws=DRAWS)
    return {
        name: Estimate(float(values_QM[:, index].mean()), *percentile_interval(means_DM[:, index]))
        for index, name in enumerate(SCORES)
    }


def _values(predictions: Sequence[Prediction], score: str) -> Doubles:
    return np.asarray([getattr(p, score) for p in predictions if not p.infra_failed], dtype=np.float64)


def _parts(scored: Sequence[Prediction], key: Callable[[Prediction], int | str | None]) -> dict[str, Part]:
    """By `key`, in its order (2 hops before 10); questions without one are left out."""
    groups: dict[Any, list[Prediction]] = {}
    for prediction in scored:
        if (part := key(prediction)) is not None:
            groups.setdefault(part, []).append(prediction)
    return {
        str(part): Part(
            len(groups[part]), *(float(_values(groups[part], score).mean()) for score in ("f1", "em", "cover_em"))
        )
        for part in sorted(groups)
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
