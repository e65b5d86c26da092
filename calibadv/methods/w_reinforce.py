"""W-REINFORCE: right rollouts count little and wrong ones fully, without a baseline.

A = lam on a right rollout, -1 on a wrong one
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibadv.advantages.group import broadcast
from calibadv.advantages.silver import correct_rollouts
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation, Reasons, Term
from calibadv.types import Credit, FloatArray, Group


def w_reinforce(*, lam: float = 0.1, correct_threshold: float = 0.7) -> Method:
    """Weighted REINFORCE (Zhu et al. 2025, arXiv 2506.01347): negatives alone explore, few positives keep on course.

    Theirs has rewards of +1 and -1. Here a rollout is right as for CalibAdv's silver documents: format reward 1 and
    answer reward >= `correct_threshold` (our decision). A group that is right or wrong as a whole trains too.
    ValueError for a negative `lam`.
    """
    if lam < 0:
        raise ValueError(f"lam is {lam}, expected a weight of 0 or more (the paper: 0.1)")

    def right_or_wrong(group: Group) -> FloatArray:
        right = set(correct_rollouts(group, correct_threshold=correct_threshold))
        return np.array([lam if i in right else -1.0 for i in range(len(group.trajectories))], dtype=np.float32)

    def advantages(group: Group) -> Credit:
        return broadcast(right_or_wrong(group), group)

    def explain(group: Group) -> Explanation:
        return [
            [Reasons(((Term("λ, a right rollout" if weight >= 0 else "a wrong rollout", float(weight)),),))]
            * len(t.turns)
            for weight, t in zip(right_or_wrong(group), group.trajectories, strict=True)
        ]

    return replace(grpo(), name="w_reinforce", advantages=advantages, explain=explain)
