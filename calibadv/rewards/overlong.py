"""The soft punishment of long rollouts, a part of the reward (`reward.overlong`)."""

from __future__ import annotations

from dataclasses import dataclass

from calibadv.types import Trajectory


@dataclass(frozen=True, slots=True)
class Overlong:
    """Takes nothing off up to `begin` sampled tokens, `penalty` from `end` on, and in between along a line.

    DAPO's soft overlong punishment (2503.14476) with begin = L_max - L_cache and end = L_max. Sampled tokens of
    all turns: what was read is not the policy's length.
    """

    begin: int
    end: int
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.begin < self.end:
            raise ValueError(
                f"reward.overlong = [{self.begin}, {self.end}]: expected the tokens at which the penalty begins and, "
                "above them, those at which it is whole, e.g. [3072, 4096]"
            )

    def __call__(self, trajectory: Trajectory) -> float:
        """The part of the reward, in [-penalty, 0]."""
        over = (trajectory.num_actions - self.begin) / (self.end - self.begin)
        return -self.penalty * min(max(over, 0.0), 1.0)
