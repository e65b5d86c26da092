"""GiGPO: the outcome advantage plus an advantage among turns that answer to the same state.

A = A_E + omega * A_S;   A_S: R_t = sum over k >= t of gamma^(k - t) r_k, normalised among turns of one anchor
"""

from __future__ import annotations

from dataclasses import replace

from calibadv.advantages.anchor import anchor_states, step_returns
from calibadv.advantages.group import outcome_credit
from calibadv.advantages.turns import add_to_turns, relative_to_peers
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.types import Credit, Group


def gigpo(*, omega: float = 1.0, gamma: float = 0.95, invalid_penalty: float = 0.01, similarity: float = 0.9) -> Method:
    """Group-in-group policy optimization (Feng et al. 2025), ported to concatenated chains.

    Theirs writes the prompt anew each turn; here a turn sees the whole dialogue, and its anchor is what it read last.
    `similarity` is the share of token ids from which two information blocks are one anchor (1: the same ids).
    `invalid_penalty` is taken off the return at each void turn and discounted backwards with it; A_E is of the outcome
    alone. A turn whose anchor no other has gets A_S = 0, so that a group without repeated anchors but the question's
    differs from GRPO at first turns only. With `gamma` < 1 shorter rollouts of equal reward rank higher; `gamma` = 1 is
    an ablation. ValueError for a negative weight or penalty, or for gamma or similarity outside (0, 1].
    """
    for name, value in (("omega", omega), ("invalid_penalty", invalid_penalty)):
        if value < 0:
            raise ValueError(f"{name} is {value}, expected 0 or more (0 turns it off)")
    for name, value in (("gamma", gamma), ("similarity", similarity)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} is {value}, expected a number above 0 and at most 1")

    def advantages(group: Group) -> Credit:
        returns = step_returns(group, gamma, invalid_penalty)
        return add_to_turns(
            outcome_credit(group), relative_to_peers(returns, anchor_states(group, similarity)), group, omega
        )

    return replace(grpo(), name="gigpo", advantages=advantages)
