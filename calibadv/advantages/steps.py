"""Where the steps of a trajectory lie among its action tokens."""

from __future__ import annotations

from calibadv.types import Trajectory


def step_slices(trajectory: Trajectory) -> list[slice]:
    """The slice of each turn in the trajectory's action tokens [N], in order. The last one is the final-answer step."""
    slices, start = [], 0
    for turn in trajectory.turns:
        slices.append(slice(start, start + len(turn.action_ids)))
        start += len(turn.action_ids)
    return slices
