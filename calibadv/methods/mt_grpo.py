"""MT-GRPO: the outcome advantage plus an advantage of the turn, from what its search returned.

chains (official code, v1)   A_O + lam * A_T up to the first search result, A_O after it; A_T among the trajectories
tree (CalibAdv appendix A)   A_O + lam * A_T on every search;                             A_T among sibling turns
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from calibadv.advantages.group import Baseline, check_within_group, outcome_credit
from calibadv.advantages.tree import parent_nodes, turn_nodes
from calibadv.advantages.turns import TurnKeys, TurnValues, add_to_turns, relative, relative_to_peers, turn_rewards
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation, Product, Term, compared, outcome_reasons, peer_products
from calibadv.rewards.turn_success import each_search_rewards, first_search, first_search_rewards
from calibadv.rewards.turns import at_once
from calibadv.rollout.plans import siblings
from calibadv.types import Credit, Group, TurnKind

TURN_STD_EPSILON = 1e-4  # official code


def mt_grpo(*, form: Literal["chains", "tree"] = "chains", lam: float = 1.0, baseline: Baseline = "grpo") -> Method:
    """Multi-turn GRPO (Wei et al. 2025).

    `form` "tree" rolls out a trunk and branches along it, so that actions have siblings. A_O keeps the epsilon that all
    methods share, so that `lam` = 0 is GRPO (our decision; the official code adds 1e-4 to both stds). `baseline` is
    A_O's, as for `grpo`. ValueError for an unknown form, a negative `lam`, or a baseline on the step's scale.
    """
    if form not in ("chains", "tree"):
        raise ValueError(f"form is {form!r}, expected 'chains' (independent rollouts) or 'tree' (sibling actions)")
    if lam < 0:
        raise ValueError(f"lam is {lam}, expected a weight of 0 or more (official code: 1)")
    check_within_group(baseline, "mt_grpo", "advantages of turns")
    turn_advantages = first_turn_advantages if form == "chains" else sibling_advantages

    def advantages(group: Group) -> Credit:
        return add_to_turns(outcome_credit(group, baseline), turn_advantages(group), group, lam)

    def explain(group: Group) -> Explanation:
        products = first_turn_products(group) if form == "chains" else sibling_products(group)
        return [
            [reasons.plus(Term("λ", lam), *product) for reasons, product in zip(reasons_S, products_S, strict=True)]
            for reasons_S, products_S in zip(outcome_reasons(group, baseline=baseline), products, strict=True)
        ]

    method = replace(grpo(baseline=baseline), name="mt_grpo", advantages=advantages, explain=explain)
    if form == "chains":
        return replace(method, score_turns=at_once(first_search_rewards))
    return replace(method, plan=siblings, score_turns=at_once(each_search_rewards))


def first_turn_advantages(group: Group) -> TurnValues:
    """A_T at the turns up to the first search, 0 after it, from the reward of that search, std + 1e-4. Rows [S].

    A trajectory that never searches has the turn reward 0 and carries its A_T on all its turns: none of them comes
    after a search result (our decision; the official code normalises the sum of both rewards there). One trajectory, or
    equal turn rewards: 0.
    """
    firsts_G, rewards_G = first_turn_rewards(group)
    rows = []
    for trajectory, first, advantage in zip(
        group.trajectories, firsts_G, relative(rewards_G, TURN_STD_EPSILON), strict=True
    ):
        row_S = np.zeros(len(trajectory.turns), dtype=np.float32)
        row_S[: len(row_S) if first is None else first + 1] = advantage
        rows.append(row_S)
    return rows


def first_turn_rewards(group: Group) -> tuple[list[int | None], list[float]]:
    """Of each trajectory the index of its first search (None: it never searches) and that turn's reward (then 0)."""
    firsts_G = [first_search(t) for t in group.trajectories]
    return firsts_G, [
        0.0 if s is None else t.turns[s].reward for s, t in zip(firsts_G, group.trajectories, strict=True)
    ]


def first_turn_products(group: Group) -> list[list[Product]]:
    """The factors of `first_turn_advantages`. Rows [S]."""
    firsts_G, rewards_G = first_turn_rewards(group)
    return [
        [
            compared(reward, rewards_G, "first search's reward", TURN_STD_EPSILON)
            if len(rewards_G) > 1 and (first is None or s <= first)
            else (
                Term("after the first search's result" if first is not None and s > first else "without a peer", 0.0),
            )
            for s in range(len(trajectory.turns))
        ]
        for trajectory, first, reward in zip(group.trajectories, firsts_G, rewards_G, strict=True)
    ]


def sibling_products(group: Group) -> list[list[Product]]:
    """The factors of `sibling_advantages`. Rows [S]."""
    return peer_products(
        turn_rewards(group), siblings_of(group), "turn reward", turns=turn_nodes(group), epsilon=TURN_STD_EPSILON
    )


def sibling_advantages(group: Group) -> TurnValues:
    """A_T of each turn among the distinct turns that went on from the same state, std + 1e-4. Rows [S].

    Answers are neither scored nor compared: 0. A void turn is compared, as a call that failed (our decision). Equal
    siblings, or none: 0.
    """
    return relative_to_peers(turn_rewards(group), siblings_of(group), turns=turn_nodes(group), epsilon=TURN_STD_EPSILON)


def siblings_of(group: Group) -> TurnKeys:
    """The state that each turn went on from, by which it is compared; None of an answer. Rows [S]."""
    return [
        [None if turn.kind is TurnKind.ANSWER else parent for turn, parent in zip(t.turns, parents_S, strict=True)]
        for t, parents_S in zip(group.trajectories, parent_nodes(group), strict=True)
    ]
