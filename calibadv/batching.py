"""Groups -> shards a learner -> rows -> token-budget micro-batches.

The mini-batch of a rollout is drawn over the *whole* step before anything is sharded, so that the update is the same
for every number of learners: each rank trains its own rollouts of mini-batch m, and the loss is divided by the
token count that all ranks share.

B rows, T padded tokens, N action tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibadv.types import FloatArray, Group, IntArray, Trajectory

PAD_ID = 0  # masked everywhere; any id of the vocabulary will do


@dataclass(frozen=True, slots=True)
class GroupShard:
    """A whole group and the mini-batch of each of its trajectories: what one learner receives of one question."""

    group: Group
    minibatch_G: tuple[int, ...]

    def __len__(self) -> int:
        """Tokens of the group (RLlib calls `len` on an episode)."""
        return sum(t.num_tokens for t in self.group.trajectories)


@dataclass(frozen=True, slots=True)
class Row:
    """One trajectory as the learner sees it: one flat sequence with its action tokens marked."""

    ids_T: IntArray
    action_T: NDArray[np.bool_]  # True at sampled tokens, the only ones that train
    sampler_logprobs_N: FloatArray  # nats, as the engine reported them
    old_logprobs_N: FloatArray  # nats, what the ratio is taken against: the sampler's, or recomputed by the learner
    advantages_N: FloatArray
    minibatch: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Right-padded rows that fit the token budget together. Flat [N] arrays follow the action mask row by row."""

    ids_BT: IntArray
    action_BT: NDArray[np.bool_]
    sampler_logprobs_N: FloatArray
    old_logprobs_N: FloatArray
    advantages_N: FloatArray


def shard_groups(
    groups: Sequence[Group], *, num_minibatches: int, num_shards: int, seed: int
) -> list[list[GroupShard]]:
    """Whole groups dealt to `num_shards` learners, balanced by tokens, with a mini-batch drawn for each rollout.

    The draw depends on `seed` and the number of rollouts alone, and mini-batches differ by one rollout at most. A shard
    may be empty: its learner still takes part in every update, with no rows.
    """
    total = sum(len(group.trajectories) for group in groups)
    order = np.random.default_rng(seed).permutation(total)
    minibatch_of = np.empty(total, dtype=np.int64)
    minibatch_of[order] = np.arange(total) * num_minibatches // max(total, 1)
    starts = np.cumsum([0, *(len(group.trajectories) for group in groups)])
    items = [
        GroupShard(group, tuple(minibatch_of[start : start + len(group.trajectories)].tolist()))
        for group, start in zip(groups, starts[:-1], strict=True)
    ]
    shards: list[list[GroupShard]] = [[] for _ in range(num_shards)]
    loads = [0] * num_shards
    for item in sorted(items, key=len, reverse=True):
        lightest = loads.index(min(loads))
        shards[lightest].append(item)
        loads[lightest] += len(item)
    return shards


def to_row(trajectory: Trajectory, advantages_N: FloatArray, minibatch: int = 0) -> Row:
    """The trajectory as one sequence. What follows the last action is dropped: nothing is learned from it."""
    parts, actions = [trajectory.prompt_ids], [np.zeros(len(trajectory.prompt_ids), dtype=np.bool_)]
    for turn in trajectory.turns:
        parts += [turn.action_ids, turn.observation_ids]
        actions += [np.ones(len(turn.action_ids), np.bool_), np.zeros(len(turn.observation_ids), np.bool_)]
    ids_T, action_T = np.concatenate(parts), np.concatenate(actions)
    end = int(action_T.nonzero()[0][-1]) + 1 if action_T.any() else len(ids_T)
    logprobs_N = np.concatenate([turn.logprobs for turn in trajectory.turns], dtype=np.float32)
    assert len(logprobs_N) == len(advantages_N) == int(action_T.sum()), "credit and actions out of step"
    return Row(ids_T[:end], action_T[:end], logprobs_N, logprobs_N, advantages_N, minibatch)


def micro_batches(rows: Sequence[Row], token_budget: int) -> list[MicroBatch]:
    """Rows packed longest first, each micro-batch at most `token_budget` padded tokens (a longer row goes alone)."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: len(row.ids_T), reverse=True):
        current = batches[-1] if batches else []
        if current and (len(current) + 1) * len(current[0].ids_T) <= token_budget:
            current.append(row)
        else:
            batches.append([row])
    return [_stack(batch) for batch in batches]


def _stack(rows: Sequence[Row]) -> MicroBatch:
    width = len(rows[0].ids_T)
    ids_BT = np.full((len(rows), width), PAD_ID, dtype=np.int64)
    action_BT = np.zeros((len(rows), width), dtype=np.bool_)
    for b, row in enumerate(rows):
        ids_BT[b, : len(row.ids_T)] = row.ids_T
        action_BT[b, : len(row.ids_T)] = row.action_T
    return MicroBatch(
        ids_BT,
        action_BT,
        np.concatenate([row.sampler_logprobs_N for row in rows]),
        np.concatenate([row.old_logprobs_N for row in rows]),
        np.concatenate([row.advantages_N for row in rows]),
    )
