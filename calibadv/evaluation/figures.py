"""The figures of a model on a set of questions, from its predictions: means, intervals, and parts by hops and type.

Array legend: Q scored questions, M measures of a question, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibadv.evaluation.prediction import Prediction
from calibadv.measures import high_ppl_ratio

DRAWS = 2_000  # an interval's ends then vary by some 4 % of its half-width, and seven benchmarks cost seconds
SCORES = ("f1", "em", "cover_em", "format")
Doubles = NDArray[np.float64]


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
    of_all = means(predictions)
    return Figures(
        questions=len(predictions),
        infra_failed=len(predictions) - len(scored),
        truncated=sum(p.truncated for p in scored),
        **_estimates(scored, of_all),
        searches=of_all.get("searches"),
        tokens=of_all.get("tokens"),
        high_ppl_ratio=high_ppl_ratio(p.perplexity for p in scored),
        by_hops=_parts(scored, lambda p: p.hops),
        by_type=_parts(scored, lambda p: p.type),
    )


def means(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Mean scores, searches and tokens over the scored questions, by name; {} where there is none."""
    scored = [p for p in predictions if not p.infra_failed]
    names = (*SCORES, "searches", "tokens") if scored else ()
    return {name: fmean(getattr(p, name) for p in scored) for name in names}


def f1_by_benchmark(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Mean F1 of each data set, by name, and as "mean" the mean of those means; {} for a single data set.

    The data set is what stands before the "/" of a question's id.
    """
    scores: dict[str, list[float]] = {}
    for prediction in predictions:
        if prediction.f1 is not None:
            scores.setdefault(prediction.id.partition("/")[0], []).append(prediction.f1)
    if len(scores) < 2:
        return {}
    by_name = {name: sum(values) / len(values) for name, values in sorted(scores.items())}
    return by_name | {"mean": sum(by_name.values()) / len(by_name)}


def mean_f1(sets: Sequence[Sequence[Prediction]]) -> Estimate | None:
    """The mean over sets of their mean F1, each set weighing the same (CalibAdv table 1); None if one has no score."""
    values = [_values(predictions, "f1") for predictions in sets]
    if not values or not all(len(values_Q) for values_Q in values):
        return None
    low, high = mean_of_means_interval(values, draws=DRAWS)
    return Estimate(fmean(map(fmean, values)), low, high)


# Not scipy.stats.bootstrap: it refuses a single question, and seeds several sets as one.
_LEVEL = 0.95
_DRAWN_TOGETHER = 2**16  # values: few questions need no loop over draws, and many fill no memory


def bootstrap_means(values_QM: Doubles, *, draws: int = 10_000, seed: int | Sequence[int] = 0) -> Doubles:
    """Means over the questions of `draws` resamples [D, M]; [D] for values [Q] of a single measure.

    How far a mean would move, had other questions been asked: they are drawn with replacement, and all measures see the
    same draws. ValueError without a question or a draw.
    """
    questions = len(values_QM)
    if not questions or draws < 1:
        raise ValueError(f"{questions} questions, {draws} draws: expected at least one of each")
    rng = np.random.default_rng(seed)
    together = max(1, _DRAWN_TOGETHER // values_QM.size)  # the draws are the same whatever it is
    sizes = (min(together, draws - made) for made in range(0, draws, together))
    return np.concatenate([values_QM[rng.integers(questions, size=(size, questions))].mean(axis=1) for size in sizes])


def percentile_interval(means_D: Doubles) -> tuple[float, float]:
    """The interval that holds the middle 95 % of the draws; a single value twice where they are all equal."""
    low, high = np.quantile(means_D, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def mean_of_means_interval(sets: Sequence[Doubles], *, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean over data sets of their means; `sets` are values [Q], a data set each, at least one.

    Each set is resampled by itself: its size is given, and it weighs as much as any other in the mean.
    """
    means_SD = [bootstrap_means(values_Q, draws=draws, seed=(0, index)) for index, values_Q in enumerate(sets)]
    return percentile_interval(np.mean(means_SD, axis=0))


def _estimates(scored: Sequence[Prediction], of_all: Mapping[str, float]) -> dict[str, Estimate | None]:
    if not scored:
        return dict.fromkeys(SCORES)
    means_DM = bootstrap_means(np.stack([_values(scored, name) for name in SCORES], axis=1), draws=DRAWS)
    return {name: Estimate(of_all[name], *percentile_interval(means_DM[:, index])) for index, name in enumerate(SCORES)}


def _values(predictions: Sequence[Prediction], score: str) -> Doubles:
    return np.asarray([getattr(p, score) for p in predictions if not p.infra_failed], dtype=np.float64)


def _parts(scored: Sequence[Prediction], key: Callable[[Prediction], int | str | None]) -> dict[str, Part]:
    """By `key`, in its order (2 hops before 10); questions without one are left out."""
    groups: dict[Any, list[Prediction]] = {}
    for prediction in scored:
        if (part := key(prediction)) is not None:
            groups.setdefault(part, []).append(prediction)
    of_parts = {part: (groups[part], means(groups[part])) for part in sorted(groups)}
    return {
        str(part): Part(len(of_part), mean["f1"], mean["em"], mean["cover_em"])
        for part, (of_part, mean) in of_parts.items()
    }
