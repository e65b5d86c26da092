"""Controls: credit that isolates one thing, the sign of the net mass, its size, or whether there is a signal at all.

Each takes GRPO's credit of a group and changes its masses. P, N: the sums of positive and of |negative| advantages over
the tokens of a group.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from calibadv.advantages.group import outcome_credit
from calibadv.advantages.rebalance import rebalance_answers
from calibadv.advantages.silver import soften_negative, uniform_scores
from calibadv.methods import METHODS, make_method
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method, silver_scores
from calibadv.types import Credit, Group


def scaled(*, negative: float = 1.0, positive: float = 1.0) -> Method:
    """GRPO with its negative advantages times `negative` and its positive ones times `positive`."""
    return _control("scaled", lambda group: scale(outcome_credit(group), negative, positive))


def positives_only() -> Method:
    """Rejection-sampling-like: negative advantages are 0."""
    return _control("positives_only", lambda group: scale(outcome_credit(group), negative=0.0))


def negatives_only() -> Method:
    """Positive advantages are 0."""
    return _control("negatives_only", lambda group: scale(outcome_credit(group), positive=0.0))


def balanced(*, ratio: float = 1.0, by: str = "positives") -> Method:
    """GRPO whose N / P is `ratio` in every group, by scaling its "positives" or its "negatives".

    A group that lacks one of the two is left as it is. ValueError for another `by` or a ratio that is not positive.
    """
    if by not in ("positives", "negatives") or ratio <= 0:
        raise ValueError(f"by = {by!r}, ratio = {ratio}: expected 'positives' or 'negatives', and a positive number")

    def advantages(group: Group) -> Credit:
        credit = outcome_credit(group)
        positive, negative = masses(credit)
        if not positive or not negative:
            return credit
        factor = negative / (positive * ratio)
        return scale(credit, positive=factor) if by == "positives" else scale(credit, negative=1 / factor)

    return _control("balanced", advantages)


def calibrated(
    *, negative: float = 1.0, soft_pen: Literal["silver", "uniform", "none"] = "silver", adv_reb: bool = True
) -> Method:
    """CalibAdv's parts (sec. 3.2, 3.3) over GRPO's credit with its negatives times `negative`; no PreThink.

    What `calibadv` does to a credit whose net mass is more negative than this world's own.
    """

    def advantages(group: Group) -> Credit:
        credit = scale(outcome_credit(group), negative=negative)
        if soft_pen != "none":
            scores = silver_scores(group) if soft_pen == "silver" else uniform_scores(group)
            credit = soften_negative(credit, group, scores)
        return rebalance_answers(credit, group) if adv_reb else credit

    return _control("calibrated", advantages)


def shuffled(*, ratio: float = 1.0) -> Method:
    """No signal: a group's advantages dealt out anew among its rollouts, then scaled so that N / P is `ratio`.

    Both masses are scaled by the root, so that their sum hardly changes. Equal for equal groups.
    """

    def advantages(group: Group) -> Credit:
        credit = outcome_credit(group)
        values_G = [float(row_N[0]) if len(row_N) else 0.0 for row_N in credit]
        order = np.random.default_rng(zlib.crc32(group.question.id.encode())).permutation(len(values_G))
        dealt = [np.full_like(row_N, values_G[order[i]]) for i, row_N in enumerate(credit)]
        positive, negative = masses(dealt)
        if not positive or not negative:
            return dealt
        factor = float(np.sqrt(ratio * positive / negative))
        return scale(dealt, negative=factor, positive=1 / factor)

    return _control("shuffled", advantages)


def masses(credit: Credit) -> tuple[float, float]:
    """P and N of a group's credit, over its tokens."""
    positive, negative = (
        sum(float(np.maximum(sign * row_N, 0.0).sum(dtype=np.float64)) for row_N in credit) for sign in (1, -1)
    )
    return positive, negative


def scale(credit: Credit, negative: float = 1.0, positive: float = 1.0) -> Credit:
    """Negative advantages times one factor, positive ones times the other."""
    return [(row_N * np.where(row_N < 0, negative, positive)).astype(np.float32) for row_N in credit]


def _control(name: str, advantages: Callable[[Group], Credit]) -> Method:
    return replace(grpo(), name=name, advantages=advantages)


CONTROLS: dict[str, Callable[..., Method]] = {
    "balanced": balanced,
    "calibrated": calibrated,
    "negatives_only": negatives_only,
    "positives_only": positives_only,
    "scaled": scaled,
    "shuffled": shuffled,
}


def lab_method(name: str, params: dict[str, Any]) -> Method:
    """A control by its name, or else a method of the registry. ValueError for what neither has."""
    return make_method(name, params, {**METHODS, **CONTROLS})
