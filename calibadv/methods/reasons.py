"""Why a turn got its credit, as data: a sum of products of named numbers, which a test multiplies out.

Each method makes its reasons beside its credit, from the numbers that the credit is made of. S turns of a trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibadv.advantages.group import EQUAL_REWARDS, STD_EPSILON, Baseline, baseline_divisor
from calibadv.advantages.steps import step_slices
from calibadv.advantages.turns import TurnKeys, TurnValues, alternatives, own_identities
from calibadv.types import Credit, FloatArray, Group


@dataclass(frozen=True, slots=True)
class Term:
    """One factor of a turn's credit."""

    name: str
    value: float
    why: str = ""  # where the value comes from, in words and numbers


Product = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Reasons:
    """The credit of one turn: the sum of the products. `note`: what no number of it tells."""

    addends: tuple[Product, ...]
    note: str = ""

    @property
    def total(self) -> float:
        """The mean credit of the turn's tokens."""
        return sum(math.prod(term.value for term in product) for product in self.addends)

    def times(self, term: Term) -> Reasons:
        """Every addend times one more factor."""
        return replace(self, addends=tuple((*product, term) for product in self.addends))

    def plus(self, *product: Term) -> Reasons:
        """One more addend."""
        return replace(self, addends=(*self.addends, product))


Explanation = list[list[Reasons]]
"""A row [S] a trajectory: the reasons of each of its turns."""


SCALES = {"grpo": "1 / deviation", "rloo": "G / (G - 1)", "maxrl": "1 / mean"}  # of r - mean; else there is none


def compared(
    value: float,
    values_K: Sequence[float] | FloatArray,
    what: str,
    epsilon: float = STD_EPSILON,
    baseline: Baseline = "grpo",
) -> Product:
    """The factors of (value - mean) / (std + epsilon) among K alternatives, as `advantages` has it, or of a `baseline`.

    Equal values: one factor 0. One value alone is, as in `group_advantages`, compared with nothing.
    """
    values = np.asarray(values_K, dtype=np.float64)
    if len(values) == 1:
        alone = Term(f"{what}, alone", float(value))
        return (alone, Term("1 / (1 + ε)", 1 / (1 + epsilon))) if baseline == "grpo" else (alone,)
    if np.ptp(values) < EQUAL_REWARDS:
        return (Term(f"all {what}s equal", 0.0, f"{len(values)} times {_short(values[0])}"),)
    mean = float(values.mean())
    centred = Term(f"{what} - mean", float(value) - mean, f"{_short(value)} - {_short(mean)}")
    if (scale := SCALES.get(baseline)) is None:
        return (centred,)
    of = f"of {len(values)}: {' '.join(map(_short, values))}"
    return (centred, Term(scale, 1 / baseline_divisor(values, baseline, epsilon), of))


STEP_SCALE = "what trained was divided by the deviation of the whole step's rewards around their questions' means"


def outcome_reasons(group: Group, among: Sequence[bool] | None = None, baseline: Baseline = "grpo") -> Explanation:
    """GRPO's: the rollout's reward beside those of the group, the same for all of its turns.

    `among`: which trajectories are compared, where not all are; the others have the credit 0.
    """
    compares = among or [True] * len(group.trajectories)
    rewards_G = [t.reward for t, counts in zip(group.trajectories, compares, strict=True) if counts]
    note = STEP_SCALE if baseline == "reinforce++" else ""
    rows = []
    for t, counts in zip(group.trajectories, compares, strict=True):
        product = compared(t.reward, rewards_G, "reward", baseline=baseline) if counts else (Term("left out", 0.0),)
        rows.append([Reasons((product,), note)] * len(t.turns))
    return rows


def peer_products(
    rewards: TurnValues,
    peers: TurnKeys,
    what: str,
    *,
    turns: TurnKeys | None = None,
    epsilon: float = STD_EPSILON,
    baseline: Baseline = "grpo",
) -> list[list[Product]]:
    """The factors of `relative_to_peers`, of the same arguments, or of another `baseline`. Rows [S]."""
    identities = turns or own_identities(peers)
    compared_turns = alternatives(rewards, peers, identities)

    def product(reward: float, peer: Hashable) -> Product:
        if peer is None:
            return (Term(f"no {what} here", 0.0),)
        if len(beside := list(compared_turns[peer].values())) == 1:
            return (Term(f"{what} without a peer", 0.0, _short(reward)),)
        return compared(reward, beside, what, epsilon, baseline)

    return [
        [product(float(reward), peer) for reward, peer in zip(rewards_S, peers_S, strict=True)]
        for rewards_S, peers_S in zip(rewards, peers, strict=True)
    ]


def turn_means(credit: Credit, group: Group) -> list[list[float]]:
    """The mean credit of each turn's tokens; of a turn without tokens 0. Rows [S]."""
    return [
        [float(row_N[tokens].mean()) if tokens.stop > tokens.start else 0.0 for tokens in step_slices(trajectory)]
        for row_N, trajectory in zip(credit, group.trajectories, strict=True)
    ]


def _short(value: float) -> str:
    return f"{value:.2f}"
