"""Tree-GRPO: rollouts branch off each other's searches; a leaf is compared with all leaves and with its tree's.

A = GRPO among all leaves of the question + GRPO among the leaves of the same tree
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from calibadv.advantages.group import Baseline, broadcast
from calibadv.advantages.tree import prefix_weights, tree_advantages
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation, outcome_reasons, peer_products
from calibadv.rollout import plans
from calibadv.types import Credit, Group


def tree_grpo(
    *,
    trees: int = 2,
    nodes: int = 2,
    rounds: int = 1,
    train_prefix_once: bool = False,
    baseline: Baseline = "grpo",
) -> Method:
    """Tree-based group relative policy optimization (Ji et al. 2026).

    `trees` chains, then `rounds` times `nodes` branches a tree: trees * (rounds * nodes + 1) leaves a question, 6 by
    default. The configuration's number of samples is not read. One advantage a leaf, on its whole chain, shared
    prefixes included; `train_prefix_once` weighs a shared turn by 1 / number of leaves that hold it (our option).
    `baseline` is that of both comparisons, as for `grpo`.
    ValueError where there is no tree, or for a negative number.
    """
    forest = plans.trees(trees, nodes, rounds)

    def advantages(group: Group) -> Credit:
        return broadcast(tree_advantages(group, baseline), group)

    return replace(
        grpo(baseline=baseline),
        name="tree_grpo",
        advantages=advantages,
        plan=lambda _samples: forest,
        weights=prefix_weights if train_prefix_once else None,
        explain=partial(tree_reasons, baseline=baseline),
    )


def tree_reasons(group: Group, baseline: Baseline = "grpo") -> Explanation:
    """GRPO's reasons, and the same within the leaf's tree."""
    rewards = [np.array([t.reward], dtype=np.float32) for t in group.trajectories]
    within = peer_products(rewards, [[t.tree] for t in group.trajectories], "reward in the tree", baseline=baseline)
    return [
        [reasons.plus(*product) for reasons in reasons_S]
        for reasons_S, (product,) in zip(outcome_reasons(group, baseline=baseline), within, strict=True)
    ]
