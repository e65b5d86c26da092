"""Group-relative advantages, the base of every GRPO-like method (Shao et al. 2024; CalibAdv sec. 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibadv.types import Credit, FloatArray, Group

STD_EPSILON = 1e-6
EQUAL_REWARDS = 1e-6  # rewards closer together than this are one reward


def group_advantages(rewards_G: Sequence[float] | FloatArray) -> FloatArray:
    """(r - mean) / (std + 1e-6) over the rollouts of one question, unbiased std. Shape [G].

    A group of one keeps its reward (mean 0, std 1). Equal rewards give exact zeros: the float residue over
    1e-6 would be noise with a random sign.
    """
    rewards = np.asarray(rewards_G, dtype=np.float64)
    if len(rewards) == 1:
        return (rewards / (1 + STD_EPSILON)).astype(np.float32)
    if np.ptp(rewards) < EQUAL_REWARDS:
        return np.zeros(len(rewards), dtype=np.float32)
    advantages: FloatArray = ((rewards - rewards.mean()) / (rewards.std(ddof=1) + STD_EPSILON)).astype(np.float32)
    return advantages


def broadcast(advantages_G: FloatArray, group: Group) -> Credit:
    """Every action token of trajectory i gets advantage i. One row [N] a trajectory."""
    return [
        np.full(trajectory.num_actions, advantage, dtype=np.float32)
        for advantage, trajectory in zip(advantages_G, group.trajectories, strict=True)
    ]


def outcome_credit(group: Group) -> Credit:
    """GRPO's credit: the group-relative advantage of the outcome reward on every action token."""
    return broadcast(group_advantages([t.reward for t in group.trajectories]), group)
