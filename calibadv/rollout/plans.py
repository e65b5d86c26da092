"""Rollout plans: which trajectories of a question are sampled, and from where."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from calibadv.types import Trajectory

RollFn = Callable[[int], Awaitable[Trajectory]]
"""sample index -> one trajectory of the question at hand"""

Plan = Callable[[RollFn], Awaitable[tuple[Trajectory, ...]]]


def chains(num_rollouts: int) -> Plan:
    """`num_rollouts` independent trajectories from the prompt, all in flight at once."""

    async def plan(roll: RollFn) -> tuple[Trajectory, ...]:
        return tuple(await asyncio.gather(*(roll(index) for index in range(num_rollouts))))

    return plan
