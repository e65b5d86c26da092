"""Rebalancing at the answer: positive mass becomes lambda times the negative mass (CalibAdv sec. 3.3, eq. 6-7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from calibadv.advantages.steps import step_slices
from calibadv.types import Credit, FloatArray, Group

OneSided = Literal["keep", "zero"]


def rebalance_answers(credit: Credit, group: Group, *, lam: float = 1.0, one_sided: OneSided = "keep") -> Credit:
    """Positive final-step advantages times lam * N / P; everything else as it was.

    P and N are the masses of positive and |negative| advantages over the *tokens* of the group's final steps. Where
    one of them is 0 the ratio is undefined: `keep` leaves the group as it is (paper), `zero` sets every final-step
    advantage of the group to 0 (reference).
    """
    return _balanced(credit, final_tokens(group), lam, one_sided)


def rebalance_every_step(credit: Credit, group: Group, *, lam: float = 1.0, one_sided: OneSided = "keep") -> Credit:
    """`rebalance_answers` at each step index of the group: the first turns together, the second ones, and so on.

    The sweep of lambda in the paper (sec. 4.4, figure 6). A trajectory that ended earlier has no part in an index.
    """
    for index in range(max(len(trajectory.turns) for trajectory in group.trajectories)):
        credit = _balanced(credit, tokens_at(group, index), lam, one_sided)
    return credit


def final_tokens(group: Group) -> list[slice]:
    """Where the final step's tokens are, a slice a trajectory."""
    return [step_slices(trajectory)[-1] for trajectory in group.trajectories]


def tokens_at(group: Group, index: int) -> list[slice]:
    """Where the tokens of the turns of one step index are; an empty slice for a trajectory that ended earlier."""
    steps = [step_slices(trajectory) for trajectory in group.trajectories]
    return [slices[index] if index < len(slices) else slice(0) for slices in steps]


def _balanced(credit: Credit, tokens: Sequence[slice], lam: float, one_sided: OneSided) -> Credit:
    """The credit with positives among `tokens`, a slice a trajectory, times lam * N / P."""
    positive, negative = masses(credit, tokens)
    defined = positive > 0 and negative > 0
    if not defined and one_sided == "keep":
        return [row.copy() for row in credit]
    scale = lam * negative / positive if defined else 0.0
    return [_scaled(row_N, some, scale, keep_negative=defined) for row_N, some in zip(credit, tokens, strict=True)]


def masses(credit: Credit, tokens: Sequence[slice]) -> tuple[float, float]:
    """P and N: sums of the positive and of the |negative| advantages among `tokens`, a slice a trajectory."""
    values = np.concatenate([row_N[some] for row_N, some in zip(credit, tokens, strict=True)], dtype=np.float64)
    return float(values[values > 0].sum()), float(-values[values < 0].sum())


def _scaled(row_N: FloatArray, tokens: slice, scale: float, *, keep_negative: bool) -> FloatArray:
    result = row_N.copy()
    chosen = result[tokens]
    chosen[(chosen > 0) | (not keep_negative)] *= scale
    return result
