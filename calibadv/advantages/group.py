"""Group-relative advantages, the base of every GRPO-like method (Shao et al. 2024; CalibAdv sec. 2).

A = (r - mean) / d, where the baseline says what d is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibadv.types import Credit, FloatArray, Group

STD_EPSILON = 1e-6
EQUAL_REWARDS = 1e-6  # rewards closer together than this are one reward


Baseline = Literal["grpo", "dr_grpo", "rloo", "maxrl", "reinforce++"]


def group_advantages(rewards_G: Sequence[float] | FloatArray, baseline: Baseline = "grpo") -> FloatArray:
    """(r - mean) / (std + 1e-6) over the rollouts of one question, unbiased std. Shape [G].

    Another `baseline` has another divisor; see `baseline_divisor`. A group of one keeps its reward (mean 0, std 1).
    Equal rewards give exact zeros: the float residue over 1e-6 would be noise with a random sign.
    """
    rewards = np.asarray(rewards_G, dtype=np.float64)
    if len(rewards) == 1:
        return (rewards / (1 + STD_EPSILON) if baseline == "grpo" else rewards).astype(np.float32)
    if np.ptp(rewards) < EQUAL_REWARDS:
        return np.zeros(len(rewards), dtype=np.float32)
    advantages: FloatArray = ((rewards - rewards.mean()) / baseline_divisor(rewards, baseline)).astype(np.float32)
    return advantages


def baseline_divisor(rewards_G: NDArray[np.floating], baseline: Baseline, epsilon: float = STD_EPSILON) -> float:
    """What r - mean is divided by in a group of two rewards or more that are not all equal.

    "grpo": std + 1e-6. "dr_grpo": 1 (Dr. GRPO, 2503.20783). "rloo": (G - 1) / G, so that each reward is held against
    the mean of the others. "maxrl": the mean (MaxRL, 2602.02710); infinite where it is not positive, for which there is
    no formula. "reinforce++": 1, and the deviation of the whole step is divided by later (2501.03262).
    """
    if baseline == "grpo":
        return float(rewards_G.std(ddof=1)) + epsilon
    if baseline == "rloo":
        return (len(rewards_G) - 1) / len(rewards_G)
    if baseline == "maxrl":
        mean = float(rewards_G.mean())
        return mean if mean > 0 else float("inf")
    return 1.0


def check_within_group(baseline: Baseline, method: str, beside: str) -> None:
    """ValueError for a baseline whose scale is the step's, where an advantage of another scale is added to it."""
    if baseline == "reinforce++":
        raise ValueError(
            f"baseline is 'reinforce++', which divides the whole credit by the step's deviation, and {method} adds "
            f"{beside} of another scale: expected 'grpo', 'dr_grpo', 'rloo' or 'maxrl'"
        )


def broadcast(advantages_G: FloatArray, group: Group) -> Credit:
    """Every action token of trajectory i gets advantage i. One row [N] a trajectory."""
    return [
        np.full(trajectory.num_actions, advantage, dtype=np.float32)
        for advantage, trajectory in zip(advantages_G, group.trajectories, strict=True)
    ]


def outcome_credit(group: Group, baseline: Baseline = "grpo") -> Credit:
    """GRPO's credit: the group-relative advantage of the outcome reward on every action token."""
    return broadcast(group_advantages([t.reward for t in group.trajectories], baseline), group)
