"""Anchor states: turns of different trajectories that answer to the same thing (GiGPO; Feng et al. 2025).

S turns of a trajectory. A state is what the policy last read: the question, later what tools last gave.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

import numpy as np

from calibadv.advantages.gae import reward_to_go
from calibadv.advantages.turns import TurnValues
from calibadv.types import FloatArray, Group, Trajectory, TurnKind

Anchor = tuple[int, ...]
"""Token ids of an information block; empty: the question."""

QUESTION: Anchor = ()


def anchors(group: Group) -> list[list[Anchor]]:
    """What each turn answers to. Rows [S].

    A void turn that is tried again leaves the anchor as it was: the correction message tells nothing new.
    """
    rows = []
    for trajectory in group.trajectories:
        row_S, last = [], QUESTION
        for turn in trajectory.turns:
            row_S.append(last)
            read = turn.kind in (TurnKind.SEARCH, TurnKind.CALL)
            last = tuple(turn.observation_ids.tolist()) if read else last
        rows.append(row_S)
    return rows


def anchor_states(group: Group, similarity: float, *, autojunk: bool = False) -> list[list[int]]:
    """A number for each turn's state: equal where the anchors are. Rows [S].

    `similarity` 1 asks for the same token ids. Below, an anchor joins the first state whose representative it is that
    similar to (2 * matching ids / all ids of both), else it represents a state of its own. Shorter anchors come first,
    so that the states do not depend on the order of the rollouts (our decision, as are ids in place of characters).
    `autojunk` is difflib's heuristic, on in the official code: in an anchor of 200 ids or more, ids that make up over
    1 % of it begin no match.
    """
    rows = anchors(group)
    states = _states({anchor for row_S in rows for anchor in row_S}, similarity, autojunk)
    return [[states[anchor] for anchor in row_S] for row_S in rows]


def step_returns(group: Group, gamma: float, invalid_penalty: float) -> TurnValues:
    """R_t = gamma^(S - 1 - t) * outcome reward, less `invalid_penalty` at each void turn. Rows [S].

    The penalty is taken off the void turn's own return and is not discounted backwards (official code).
    """
    rows = []
    for trajectory in group.trajectories:
        rewards_S = np.zeros(len(trajectory.turns), dtype=np.float32)
        rewards_S[-1:] = trajectory.reward
        rows.append(reward_to_go(rewards_S, gamma) - void_penalties(trajectory, invalid_penalty))
    return rows


def void_penalties(trajectory: Trajectory, invalid_penalty: float) -> FloatArray:
    """`invalid_penalty` at each void turn, 0 at the others. Shape [S]."""
    return np.array([invalid_penalty * (turn.kind is TurnKind.VOID) for turn in trajectory.turns], dtype=np.float32)


def _states(distinct: Iterable[Anchor], similarity: float, autojunk: bool) -> dict[Anchor, int]:
    ordered = sorted(distinct, key=lambda anchor: (len(anchor), anchor))
    if similarity >= 1:
        return {anchor: state for state, anchor in enumerate(ordered)}
    states: dict[Anchor, int] = {}
    # SequenceMatcher remembers the counts of its second sequence, so that each representative is counted once.
    matchers: list[SequenceMatcher[int]] = []
    for anchor in ordered:
        state = next((s for s, matcher in enumerate(matchers) if _similar(anchor, matcher, similarity)), len(matchers))
        if state == len(matchers):
            matchers.append(SequenceMatcher(None, QUESTION, anchor, autojunk=autojunk))
        states[anchor] = state
    return states


def _similar(anchor: Anchor, matcher: SequenceMatcher[int], similarity: float) -> bool:
    matcher.set_seq1(anchor)
    upper_bounds = (matcher.real_quick_ratio, matcher.quick_ratio)
    return all(bound() >= similarity for bound in upper_bounds) and matcher.ratio() >= similarity
