"""c against the truth, where it is known: do silver documents stand for gold passages? (CalibAdv sec. 4.5, table 5)

The paper asks a judge model; here the gold passages of the question answer, for searches of rollouts that failed, whose
blame is what c softens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibadv.evaluation.figures import bootstrap_means, percentile_interval
from calibadv.explain.disagreement import Search
from calibadv.measures import SCORE_BINS

DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its bootstrap 95 % interval over questions, and of how many searches it is."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True, slots=True)
class Truth:
    """How far "c > 0" tells that a search found a gold passage. None: there was nothing to take a share of."""

    searches: int  # with documents, of failed rollouts whose question's gold passages are known
    precision: Rate | None  # of those with c > 0, share that found gold
    recall: Rate | None  # of those that found gold, share with c > 0
    calibration: tuple[tuple[float, float, int], ...]  # (c, mean share of gold documents, searches) by c's nearest bin


def truth_of(searches: Sequence[Search]) -> Truth | None:
    """None where no search of a failed rollout has a question of known gold passages."""
    known = [s for s in searches if s.gold_share is not None and s.failed]
    if not known:
        return None
    row_of = {question: q for q, question in enumerate(sorted({s.group.question.id for s in known}))}
    counts_Q3 = np.zeros((len(row_of), 3))  # c > 0 and gold; c > 0; gold
    for s in known:
        silver, gold = s.c > 0, bool(s.gold_share)
        counts_Q3[row_of[s.group.question.id]] += (silver and gold, silver, gold)
    nearest = [min(SCORE_BINS, key=lambda b: abs(b - s.c)) for s in known]
    calibration = tuple(
        (b, float(np.mean([s.gold_share for s, n in zip(known, nearest, strict=True) if n == b])), nearest.count(b))
        for b in SCORE_BINS
        if b in nearest
    )
    return Truth(len(known), _rate(counts_Q3[:, [0, 1]]), _rate(counts_Q3[:, [0, 2]]), calibration)


def truth_by_step(searches: Sequence[Search], *, windows: int = 5) -> list[tuple[int, int, Truth]]:
    """(first step, last step, truth) of up to `windows` parts of the training, each of about as many of its steps.

    CalibAdv sec. 4.5 asks at five checkpoints. A part of which no gold passage is known is left out.
    """
    found = [(first, last, truth_of(of)) for first, last, of in parts_of_training(searches, windows)]
    return [(first, last, truth) for first, last, truth in found if truth is not None]


def parts_of_training(searches: Sequence[Search], windows: int) -> list[tuple[int, int, list[Search]]]:
    """(first step, last step, searches) of up to `windows` parts, each of about as many of the steps at hand."""
    steps = sorted({search.step for search in searches})
    parts = [part.tolist() for part in np.array_split(steps, min(windows, len(steps)))] if steps else []
    return [(part[0], part[-1], [search for search in searches if search.step in part]) for part in parts]


def rate_over_questions(hits: Sequence[tuple[str, bool]]) -> Rate | None:
    """The share of hits, each of a question by its id, with its interval over questions; None of nothing."""
    row_of = {question: q for q, question in enumerate(sorted({question for question, _ in hits}))}
    counts_Q2 = np.zeros((len(row_of), 2))
    for question, hit in hits:
        counts_Q2[row_of[question]] += (hit, 1)
    return _rate(counts_Q2) if hits else None


def _rate(counts_Q2: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Rate | None:
    hits, of = counts_Q2.sum(axis=0)
    if not of:
        return None
    means_D2 = bootstrap_means(counts_Q2, draws=DRAWS)
    means_D2 = means_D2[means_D2[:, 1] > 0]
    low, high = percentile_interval(means_D2[:, 0] / means_D2[:, 1])
    return Rate(hits / of, low, high, int(of))
