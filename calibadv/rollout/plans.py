"""Rollout plans: which trajectories of a question are sampled, and from where.

A branch starts with turns of another trajectory as they are: tokens that are reused, not sampled, and whose prefix the
engine has cached. Equal `Turn.node` numbers in a group mark them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np

from calibadv.types import Trajectory, Turn

Prefix = tuple[Turn, ...]


class RollFn(Protocol):
    """One trajectory of the question at hand, sampled under the seeds of `sample`, on from the turns of `prefix`."""

    async def __call__(self, sample: int, prefix: Prefix = ()) -> Trajectory: ...


Plan = Callable[[RollFn, int], Awaitable[tuple[Trajectory, ...]]]
"""(roll, seed of the plan's own draws) -> the group's trajectories"""


def chains(num_rollouts: int) -> Plan:
    """`num_rollouts` independent trajectories from the prompt, all in flight at once."""

    async def plan(roll: RollFn, _: int) -> tuple[Trajectory, ...]:
        return tuple(await asyncio.gather(*(roll(index) for index in range(num_rollouts))))

    return plan


def trees(num_trees: int, nodes: int, rounds: int) -> Plan:
    """Tree-GRPO's forest: `num_trees` chains, then `rounds` times `nodes` branches a tree, each run to its end.

    A branch starts at a non-leaf node of its tree as it is by then, drawn with replacement; the root is one of them.
    M(LN + 1) trajectories for M trees, N nodes and L rounds. ValueError for a negative number or no tree.
    """
    if num_trees < 1 or nodes < 0 or rounds < 0:
        raise ValueError(f"trees = {num_trees}, nodes = {nodes}, rounds = {rounds}: expected 1, 0 and 0 at least")

    async def plan(roll: RollFn, seed: int) -> tuple[Trajectory, ...]:
        draw = np.random.default_rng(seed)
        first = await asyncio.gather(*(roll(tree) for tree in range(num_trees)))
        forest = [[trajectory] for trajectory in first]
        sampled = num_trees
        for _ in range(rounds):
            if any(leaf.infra_failed for grown in forest for leaf in grown):  # no group: what grows on is thrown away
                break
            starts = []
            for tree, grown in enumerate(forest):
                open_nodes = _open_nodes(grown)
                starts += [(tree, open_nodes[draw.integers(len(open_nodes))]) for _ in range(nodes)]
            branches = await asyncio.gather(*(roll(sampled + i, prefix) for i, (_, prefix) in enumerate(starts)))
            sampled += len(starts)
            for (tree, _), branch in zip(starts, branches, strict=True):
                forest[tree].append(branch)
        return number_nodes(replace(leaf, tree=tree) for tree, grown in enumerate(forest) for leaf in grown)

    return plan


def siblings(num_rollouts: int) -> Plan:
    """One trunk and `num_rollouts` - 1 branches dealt in turn to the states along it, so that actions have siblings.

    A state is the prompt or what the policy sees after one of the trunk's searches. The trunk answers at once: all
    branches start at the prompt.
    """

    async def plan(roll: RollFn, _: int) -> tuple[Trajectory, ...]:
        trunk = await roll(0)
        if trunk.infra_failed:
            return (trunk,)
        states = _open_nodes([trunk])
        branches = await asyncio.gather(*(roll(i, states[(i - 1) % len(states)]) for i in range(1, num_rollouts)))
        return number_nodes([trunk, *branches])

    return plan


def number_nodes(trajectories: Iterable[Trajectory]) -> tuple[Trajectory, ...]:
    """The trajectories with `Turn.node` set: a turn object that several of them hold gets one number."""
    numbers: dict[int, int] = {}
    kept = list(trajectories)  # alive, so that no two turns share an identity
    return tuple(
        replace(t, turns=tuple(replace(u, node=numbers.setdefault(id(u), len(numbers))) for u in t.turns)) for t in kept
    )


def _open_nodes(trajectories: Iterable[Trajectory]) -> list[Prefix]:
    """The distinct states that the trajectories went on from, as the turns that lead there; the prompt is the first."""
    prefixes = (t.turns[:end] for t in trajectories for end in range(len(t.turns)))
    return list({tuple(map(id, prefix)): prefix for prefix in prefixes}.values())
