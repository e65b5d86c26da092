"""GiGPO: the outcome advantage plus an advantage among turns that answer to the same state.

A = A_E + omega * A_S;   A_S: R_t = gamma^(turns to come) * reward, normalised among turns of one anchor
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from calibadv.advantages.anchor import anchor_states, step_returns, void_penalties
from calibadv.advantages.group import Baseline, check_within_group, group_advantages, outcome_credit
from calibadv.advantages.turns import add_to_turns, relative_to_peers, spread
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation, Reasons, Term, compared, outcome_reasons, peer_products
from calibadv.types import Credit, FloatArray, Group


def gigpo(
    *,
    omega: float = 1.0,
    gamma: float = 0.95,
    invalid_penalty: float = 0.01,
    similarity: float = 0.9,
    episode_statistics: Literal["rollouts", "turns"] = "rollouts",
    autojunk: bool = False,
    baseline: Baseline = "grpo",
) -> Method:
    """Group-in-group policy optimization (Feng et al. 2025), ported to concatenated chains.

    Theirs writes the prompt anew each turn; here a turn sees the whole dialogue, and its anchor is what it read last.
    `similarity` is the share of token ids from which two information blocks are one anchor (1: the same ids), with
    difflib's `autojunk` or without. `invalid_penalty` is taken off the return of each void turn alone.
    `episode_statistics` is what the mean and std of A_E count: "rollouts", as the paper's formula, so that A_E is
    GRPO's, or "turns", as the official code: each rollout once a turn, void turns less their penalty. A turn whose
    anchor no other has gets A_S = 0, so that a group without repeated anchors but the question's differs from GRPO at
    first turns only. With `gamma` < 1 shorter rollouts of equal reward rank higher; `gamma` = 1 is an ablation.
    `baseline` is A_E's, as for `grpo`. ValueError for a negative weight or penalty, for gamma or similarity outside
    (0, 1], for unknown statistics, or for a baseline on the step's scale.
    """
    for name, value in (("omega", omega), ("invalid_penalty", invalid_penalty)):
        if value < 0:
            raise ValueError(f"{name} is {value}, expected 0 or more (0 turns it off)")
    for name, value in (("gamma", gamma), ("similarity", similarity)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} is {value}, expected a number above 0 and at most 1")
    if episode_statistics not in ("rollouts", "turns"):
        raise ValueError(f"episode_statistics is {episode_statistics!r}, expected 'rollouts' or 'turns'")

    check_within_group(baseline, "gigpo", "advantages of steps")

    def episode_credit(group: Group) -> Credit:
        by_rollouts = episode_statistics == "rollouts"
        return outcome_credit(group, baseline) if by_rollouts else turn_credit(group, invalid_penalty, baseline)

    def episode_reasons(group: Group) -> Explanation:
        if episode_statistics == "rollouts":
            return outcome_reasons(group, baseline=baseline)
        return turn_reasons(group, invalid_penalty, baseline)

    def advantages(group: Group) -> Credit:
        returns = step_returns(group, gamma, invalid_penalty)
        states = anchor_states(group, similarity, autojunk=autojunk)
        return add_to_turns(episode_credit(group), relative_to_peers(returns, states), group, omega)

    def explain(group: Group) -> Explanation:
        states = anchor_states(group, similarity, autojunk=autojunk)
        step = peer_products(step_returns(group, gamma, invalid_penalty), states, "return from this state")
        return [
            [reasons.plus(Term("ω", omega), *product) for reasons, product in zip(reasons_S, products_S, strict=True)]
            for reasons_S, products_S in zip(episode_reasons(group), step, strict=True)
        ]

    return replace(grpo(baseline=baseline), name="gigpo", advantages=advantages, explain=explain)


def turn_reasons(group: Group, invalid_penalty: float, baseline: Baseline = "grpo") -> Explanation:
    """The reasons of `turn_credit`."""
    rewards = turn_outcomes(group, invalid_penalty)
    beside = np.concatenate(rewards)
    return [
        [Reasons((compared(reward, beside, "reward", baseline=baseline),)) for reward in rewards_S]
        for rewards_S in rewards
    ]


def turn_outcomes(group: Group, invalid_penalty: float) -> list[FloatArray]:
    """The rollout's reward at each of its turns, less the penalty of a void one. Rows [S]."""
    return [t.reward - void_penalties(t, invalid_penalty) for t in group.trajectories]


def turn_credit(group: Group, invalid_penalty: float, baseline: Baseline = "grpo") -> Credit:
    """A_E with a mean and std that count each rollout once a turn, void turns less their penalty. One row [N] each."""
    rewards = turn_outcomes(group, invalid_penalty)
    ends = np.cumsum([len(rewards_S) for rewards_S in rewards])
    return spread(np.split(group_advantages(np.concatenate(rewards), baseline), ends[:-1]), group)
