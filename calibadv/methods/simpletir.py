"""SimpleTIR: GRPO whose loss leaves out every trajectory with a void turn.

w = 0 if any turn is void, else 1;   loss = sum of w * surrogate / sum of w, and so for KL and entropy terms
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from calibadv.advantages.group import Baseline, broadcast, group_advantages
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation, outcome_reasons
from calibadv.types import Credit, FloatArray, Group, Trajectory, TurnKind

LEFT_OUT = "the rollout has a void turn: none of its tokens trains"


def simpletir(variant: Literal["official", "calibadv_paper"] = "official", *, baseline: Baseline = "grpo") -> Method:
    """Void-turn filtering (SimpleTIR; Xue et al. 2025).

    "official": a trajectory with a void turn stays in the group's mean and std, and none of its tokens trains, neither
    in the surrogate nor in a KL or entropy term. "calibadv_paper", the baseline of the CalibAdv paper (Table 1,
    appendix A), drops it before mean and std. The rest of the recipe (clip-higher, dual clip, oversampling) is no part
    of this baseline. `baseline` as for `grpo`. ValueError for an unknown variant.
    """
    if variant not in ("official", "calibadv_paper"):
        raise ValueError(f"variant is {variant!r}, expected 'official' or 'calibadv_paper'")

    def explain(group: Group) -> Explanation:
        among = None if variant == "official" else [not has_void_turn(t) for t in group.trajectories]
        return [
            [replace(r, note=LEFT_OUT if has_void_turn(t) else r.note) for r in reasons_S]
            for reasons_S, t in zip(outcome_reasons(group, among, baseline), group.trajectories, strict=True)
        ]

    method = replace(grpo(baseline=baseline), name="simpletir", weights=without_void_turns, explain=explain)
    return method if variant == "official" else replace(method, advantages=partial(among_valid, baseline=baseline))


def without_void_turns(group: Group) -> Credit:
    """0 on all tokens of a trajectory with a void turn, else 1. One row [N] a trajectory.

    A search where only an answer was left is a search, hence not void (our decision).
    """
    return [
        np.full(trajectory.num_actions, not has_void_turn(trajectory), np.float32) for trajectory in group.trajectories
    ]


def among_valid(group: Group, baseline: Baseline = "grpo") -> Credit:
    """GRPO's credit among the trajectories without a void turn, 0 on the others. One row [N] a trajectory.

    One that is left alone is a group of one: it keeps its reward.
    """
    sound_G = np.array([not has_void_turn(trajectory) for trajectory in group.trajectories])
    advantages_G: FloatArray = np.zeros(len(sound_G), dtype=np.float32)
    if sound_G.any():
        rewards_G = np.array([trajectory.reward for trajectory in group.trajectories])
        advantages_G[sound_G] = group_advantages(rewards_G[sound_G], baseline)
    return broadcast(advantages_G, group)


def has_void_turn(trajectory: Trajectory) -> bool:
    """Whether any turn has neither a complete search nor a complete answer."""
    return any(turn.kind is TurnKind.VOID for turn in trajectory.turns)
