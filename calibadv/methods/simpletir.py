"""SimpleTIR: GRPO whose loss leaves out every trajectory with a void turn.

w = 0 if any turn is void, else 1;   loss = sum of w * surrogate / sum of w
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.types import Credit, Group, TurnKind


def simpletir() -> Method:
    """Void-turn filtering (SimpleTIR; Xue et al. 2025).

    A trajectory with a void turn stays in the group's mean and std, and none of its tokens trains. The rest of its
    recipe (clip-higher, dual clip, oversampling) is no part of this baseline.
    """
    return replace(grpo(), name="simpletir", weights=without_void_turns)


def without_void_turns(group: Group) -> Credit:
    """0 on all tokens of a trajectory with a void turn, else 1. One row [N] a trajectory.

    A search where only an answer was left is a search, hence not void (our decision).
    """
    return [
        np.full(trajectory.num_actions, all(turn.kind is not TurnKind.VOID for turn in trajectory.turns), np.float32)
        for trajectory in group.trajectories
    ]
