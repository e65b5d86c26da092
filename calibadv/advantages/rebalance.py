"""Rebalancing at the final-answer step: positive mass becomes lambda times the negative mass (CalibAdv sec. 3.3)."""

from __future__ import annotations

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
    finals = [step_slices(trajectory)[-1] for trajectory in group.trajectories]
    final_tokens = np.concatenate([row[tokens] for row, tokens in zip(credit, finals, strict=True)], dtype=np.float64)
    positive = final_tokens[final_tokens > 0].sum()
    negative = -final_tokens[final_tokens < 0].sum()
    defined = positive > 0 and negative > 0
    if not defined and one_sided == "keep":
        return [row.copy() for row in credit]
    scale = lam * negative / positive if defined else 0.0
    return [_scale_final(row, tokens, scale, keep_negative=defined) for row, tokens in zip(credit, finals, strict=True)]


def _scale_final(row_N: FloatArray, tokens: slice, scale: float, *, keep_negative: bool) -> FloatArray:
    result = row_N.copy()
    final = result[tokens]
    final[(final > 0) | (not keep_negative)] *= scale
    return result
