"""Trees of trajectories: which turns are one turn, which are siblings, and advantages within a tree.

G trajectories (leaves) of a question, S turns of a trajectory, N action tokens.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from calibadv.advantages.group import Baseline, group_advantages
from calibadv.advantages.turns import spread
from calibadv.types import Credit, FloatArray, Group

Node = int | tuple[int, int]
"""A turn of the group: `Turn.node`, or (trajectory, turn) for a turn that no other trajectory holds."""

ROOT: Node = -1  # the prompt, the same state for all trees of a question


def turn_nodes(group: Group) -> list[list[Node]]:
    """The node of each turn: equal where trajectories share it. Rows [S]."""
    return [
        [turn.node if turn.node >= 0 else (i, s) for s, turn in enumerate(trajectory.turns)]
        for i, trajectory in enumerate(group.trajectories)
    ]


def parent_nodes(group: Group) -> list[list[Node]]:
    """The node that each turn went on from: turns of one parent are siblings. First turns: the prompt. Rows [S]."""
    return [[ROOT, *nodes_S][: len(nodes_S)] for nodes_S in turn_nodes(group)]


def tree_advantages(group: Group, baseline: Baseline = "grpo") -> FloatArray:
    """A among all leaves of the question + A among the leaves of the same tree, each by its own numbers. Shape [G].

    Tree-GRPO's two levels. The only leaf of its tree gets the first term alone (our decision). Where all trajectories
    are of one tree, as independent chains are, this is twice GRPO.
    """
    rewards_G = np.array([t.reward for t in group.trajectories], dtype=np.float32)
    trees_G = np.array([t.tree for t in group.trajectories])
    advantages_G = group_advantages(rewards_G, baseline)
    for tree in np.unique(trees_G):
        if (among := trees_G == tree).sum() > 1:
            advantages_G[among] += group_advantages(rewards_G[among], baseline)
    return advantages_G


def prefix_weights(group: Group) -> Credit:
    """1 / number of leaves that hold the token's turn: a shared prefix weighs as much as if it stood once. Rows [N]."""
    nodes = turn_nodes(group)
    leaves = Counter(node for nodes_S in nodes for node in nodes_S)
    return spread([np.array([1 / leaves[node] for node in nodes_S], dtype=np.float32) for nodes_S in nodes], group)
