"""Credit of turns: what a turn was worth beside the turns it competes with, on each of its tokens.

G trajectories of a question, S turns of a trajectory, K turns that are compared, N action tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from calibadv.advantages.group import EQUAL_REWARDS, STD_EPSILON
from calibadv.types import Credit, FloatArray, Group

TurnValues = list[FloatArray]
"""A row [S] a trajectory: a number for each of its turns."""

TurnKeys = Sequence[Sequence[Hashable]]
"""A row [S] a trajectory: what each of its turns belongs to, or is. None: to nothing."""


def relative(rewards_K: Sequence[float] | FloatArray, epsilon: float = STD_EPSILON) -> FloatArray:
    """(r - mean) / (std + epsilon) among alternatives, unbiased std. Shape [K].

    One without an alternative gets 0: unlike a group of one, it is no reward of its own but a comparison. Equal rewards
    get exact zeros.
    """
    rewards = np.asarray(rewards_K, dtype=np.float64)
    if len(rewards) < 2 or np.ptp(rewards) < EQUAL_REWARDS:
        return np.zeros(len(rewards), dtype=np.float32)
    advantages: FloatArray = ((rewards - rewards.mean()) / (rewards.std(ddof=1) + epsilon)).astype(np.float32)
    return advantages


def relative_to_peers(
    rewards: TurnValues, peers: TurnKeys, *, turns: TurnKeys | None = None, epsilon: float = STD_EPSILON
) -> TurnValues:
    """Each turn's `relative` reward among the turns of equal key in `peers`; 0 where the key is None. Rows [S].

    Turns of equal key in `turns` are one turn that several trajectories hold, and count once; by default none are.
    """
    identities = turns or own_identities(peers)
    advantages = {
        peer: dict(zip(rewards_K, relative(list(rewards_K.values()), epsilon), strict=True))
        for peer, rewards_K in alternatives(rewards, peers, identities).items()
    }
    return [
        np.array(
            [
                0.0 if peer is None else advantages[peer][identity]
                for peer, identity in zip(peers_S, identities_S, strict=True)
            ],
            dtype=np.float32,
        )
        for peers_S, identities_S in zip(peers, identities, strict=True)
    ]


def alternatives(rewards: TurnValues, peers: TurnKeys, turns: TurnKeys) -> dict[Hashable, dict[Hashable, float]]:
    """What is compared: by peer key the reward of each turn, by its identity in `turns`."""
    compared: dict[Hashable, dict[Hashable, float]] = {}
    for rewards_S, peers_S, turns_S in zip(rewards, peers, turns, strict=True):
        for reward, peer, turn in zip(rewards_S, peers_S, turns_S, strict=True):
            if peer is not None:
                compared.setdefault(peer, {})[turn] = float(reward)
    return compared


def own_identities(peers: TurnKeys) -> TurnKeys:
    """(trajectory, turn) of each turn: none is shared. Rows [S]."""
    return [[(i, s) for s in range(len(row))] for i, row in enumerate(peers)]


def turn_rewards(group: Group) -> TurnValues:
    """`Turn.reward` as it was set at rollout time. Rows [S]."""
    return [np.array([turn.reward for turn in t.turns], dtype=np.float32) for t in group.trajectories]


def spread(values: TurnValues, group: Group) -> Credit:
    """Every action token of a turn gets the turn's value. One row [N] a trajectory."""
    return [
        np.repeat(np.asarray(values_S, dtype=np.float32), [len(turn.action_ids) for turn in trajectory.turns])
        for values_S, trajectory in zip(values, group.trajectories, strict=True)
    ]


def add_to_turns(credit: Credit, values: TurnValues, group: Group, weight: float = 1.0) -> Credit:
    """A + weight * value of the token's turn. One row [N] a trajectory."""
    return [
        (row_N + weight * value_N).astype(np.float32)
        for row_N, value_N in zip(credit, spread(values, group), strict=True)
    ]
