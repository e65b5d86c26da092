"""Generalised advantage estimation over the action tokens of a trajectory (PPO; Schulman et al. 2016).

N action tokens. Retrieved and prompt tokens are no part of the recursion: what follows an action token is the next
action token, however many observation tokens lie between them (our decision; Search-R1's first code ran over all).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibadv.types import FloatArray

WHITEN_EPSILON = 1e-8


def reward_to_go(rewards_N: FloatArray, gamma: float = 1.0) -> FloatArray:
    """Σ_k γ^(k-t) r_k for every token t: what a critic that always says 0 makes of the rewards. Shape [N]."""
    return gae(rewards_N, np.zeros_like(rewards_N), gamma=gamma, lam=1.0)


def gae(rewards_N: FloatArray, values_N: FloatArray, *, gamma: float = 1.0, lam: float = 1.0) -> FloatArray:
    """A_t = δ_t + γλ A_{t+1}, δ_t = r_t + γ V_{t+1} - V_t, with V = 0 after the last token. Shape [N].

    What the critic is trained towards is A + V. No tokens: an empty row.
    """
    advantages = np.zeros(len(rewards_N), dtype=np.float64)
    ahead, next_value = 0.0, 0.0
    for t in range(len(rewards_N) - 1, -1, -1):
        ahead = float(rewards_N[t]) + gamma * next_value - float(values_N[t]) + gamma * lam * ahead
        advantages[t], next_value = ahead, float(values_N[t])
    return advantages.astype(np.float32)


def moments(rows: Sequence[FloatArray]) -> tuple[float, float, float]:
    """Number, sum and sum of squares over all rows: what ranks add up before they whiten alike."""
    flat = np.concatenate([np.zeros(0), *rows], dtype=np.float64)
    return float(len(flat)), float(flat.sum()), float((flat**2).sum())


def whiten(row_N: FloatArray, count: float, total: float, squares: float) -> FloatArray:
    """(A - mean) / sqrt(variance + 1e-8), unbiased variance, by the moments of the whole step. Shape [N].

    Fewer than two tokens in the step: the row as it is. Equal advantages give zeros.
    """
    if count < 2:
        return row_N.copy()
    mean = total / count
    variance = max(squares - count * mean**2, 0.0) / (count - 1)
    whitened: FloatArray = ((row_N - mean) / np.sqrt(variance + WHITEN_EPSILON)).astype(np.float32)
    return whitened
