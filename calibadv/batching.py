"""Groups -> shards a learner -> rows.

The mini-batch of a rollout is drawn over the *whole* step before anything is sharded, so that the update is the same
for every number of learners: each rank trains its own rollouts of mini-batch m, and the loss is divided by the
token count that all ranks share.

G trajectories of a group, M mini-batches, T tokens of a row, N action tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from calibadv.dealing import Tokens, deal_rollouts
from calibadv.types import FloatArray, Group, IntArray, Trajectory


@dataclass(frozen=True, slots=True)
class GroupShard:
    """What one learner receives of one question: the whole group, for its credit, and which of it trains here."""

    group: Group
    minibatch_G: tuple[int, ...]
    later_PG: tuple[tuple[int, ...], ...] = ()  # the same of each further pass over the step, numbered on
    rollouts: tuple[int, ...] | None = None  # of the group, those that train here; None: all

    @property
    def trained(self) -> Sequence[int]:
        """The rollouts of the group that train here, ascending."""
        return range(len(self.group.trajectories)) if self.rollouts is None else self.rollouts

    def __len__(self) -> int:
        """Tokens that train here (RLlib calls `len` on an episode)."""
        return sum(self.group.trajectories[i].num_tokens for i in self.trained)


@dataclass(frozen=True, slots=True)
class Row:
    """One trajectory as the learner sees it: one flat sequence with its action tokens marked."""

    ids_T: IntArray
    action_T: NDArray[np.bool_]  # True at sampled tokens, the only ones that train
    minibatch: int
    turn_N: IntArray  # index of each token's turn
    sampler_logprobs_N: FloatArray  # nats, as the engine reported them
    old_logprobs_N: FloatArray  # nats, what the ratio is taken against: the sampler's, or recomputed by the learner
    advantages_N: FloatArray
    weights_N: FloatArray  # of each token in the surrogate and in its divisor
    extra_weights_N: FloatArray  # of each token in the method's own loss term
    extra_counts_N: FloatArray  # 1 where that term's divisor counts the token
    values_N: FloatArray  # the critic's, before the step
    returns_N: FloatArray  # what the critic is trained towards
    later_minibatches: tuple[int, ...] = ()  # of further passes over the step


TOKEN_FIELDS = tuple(field.name for field in fields(Row) if field.name.endswith("_N"))


def shard_groups(
    groups: Sequence[Group],
    *,
    num_minibatches: int,
    num_shards: int,
    seed: int,
    passes: int = 1,
    whole_groups: bool = False,
    packed: bool = True,
) -> list[list[GroupShard]]:
    """Rollouts dealt to `num_shards` learners, so that each computes as many tokens of every mini-batch.

    `packed`: what rollouts of a group begin with alike is computed once (`deal_rollouts`). A learner has the whole
    group of each of its rollouts: credit is assigned where they train.

    Each rollout's mini-batch is drawn before, from `seed` and the number of rollouts alone; mini-batches differ by one
    rollout at most. With `whole_groups` a group's rollouts are drawn together; one that lies across a boundary is cut.
    Each of the `passes` draws anew; pass p has mini-batches p * num_minibatches and on. A shard may be empty: its
    learner still takes part in every update, with no rows.
    """
    total = sum(len(group.trajectories) for group in groups)
    random = np.random.default_rng(seed)
    drawn = np.empty((passes, total), dtype=np.int64)
    starts = np.cumsum([0, *(len(group.trajectories) for group in groups)])
    for index, minibatch_of in enumerate(drawn):
        if whole_groups:
            spans = [np.arange(starts[g], starts[g + 1]) for g in random.permutation(len(groups))]
            order = np.concatenate(spans) if spans else np.empty(0, np.int64)
        else:
            order = random.permutation(total)
        minibatch_of[order] = np.arange(total) * num_minibatches // max(total, 1)
        minibatch_of += index * num_minibatches
    items = []
    for group, start in zip(groups, starts[:-1], strict=True):
        first, *later = map(tuple, drawn[:, start : start + len(group.trajectories)].tolist())
        items.append(GroupShard(group, first, tuple(later)))
    owner_R = np.zeros(total, dtype=np.int64)
    if num_shards > 1:
        rows = [[_sequence(trajectory)[0] for trajectory in group.trajectories] for group in groups]
        tokens_RM = np.zeros((total, num_minibatches * passes))
        tokens_RM[np.arange(total), drawn] = [len(ids_T) for of_group in rows for ids_T in of_group]
        owner_R = deal_rollouts(tokens_RM, [_alike(of_group, packed) for of_group in rows], num_shards)
    shards: list[list[GroupShard]] = [[] for _ in range(num_shards)]
    sizes_G = np.array([sum(t.num_tokens for t in group.trajectories) for group in groups])
    for g in np.argsort(-sizes_G, kind="stable"):  # largest first
        item, owner_G = items[g], owner_R[starts[g] : starts[g + 1]]
        for learner in np.unique(owner_G):
            mine = tuple(np.flatnonzero(owner_G == learner).tolist())
            shards[learner].append(item if len(mine) == len(owner_G) else replace(item, rollouts=mine))
    return shards


def to_row(
    trajectory: Trajectory, advantages_N: FloatArray, minibatch: int = 0, weights_N: FloatArray | None = None
) -> Row:
    """The trajectory as one sequence, no critic and no loss term of the method's own; weights 1 where none are given.

    What follows the last action is dropped: nothing is learned from it.
    """
    ids_T, action_T = _sequence(trajectory)
    logprobs_N = np.concatenate([turn.logprobs for turn in trajectory.turns], dtype=np.float32)
    assert len(logprobs_N) == len(advantages_N) == int(action_T.sum()), "credit and actions out of step"
    ones_N, zeros_N = np.ones_like(logprobs_N), np.zeros_like(logprobs_N)
    return Row(
        ids_T=ids_T,
        action_T=action_T,
        minibatch=minibatch,
        turn_N=np.repeat(np.arange(len(trajectory.turns)), [len(turn.action_ids) for turn in trajectory.turns]),
        sampler_logprobs_N=logprobs_N,
        old_logprobs_N=logprobs_N,
        advantages_N=advantages_N,
        weights_N=ones_N if weights_N is None else weights_N,
        extra_weights_N=zeros_N,
        extra_counts_N=zeros_N,
        values_N=zeros_N,
        returns_N=zeros_N,
    )


def common_beginning(left_T: IntArray, right_T: IntArray) -> int:
    """How many tokens they have in common from the first on."""
    length = min(len(left_T), len(right_T))
    differ = (left_T[:length] != right_T[:length]).nonzero()[0]
    return int(differ[0]) if len(differ) else length


def _sequence(trajectory: Trajectory) -> tuple[IntArray, NDArray[np.bool_]]:
    """The trajectory's tokens up to its last action, and which of them are actions."""
    parts, actions = [trajectory.prompt_ids], [np.zeros(len(trajectory.prompt_ids), dtype=np.bool_)]
    for turn in trajectory.turns:
        parts += [turn.action_ids, turn.observation_ids]
        actions += [np.ones(len(turn.action_ids), np.bool_), np.zeros(len(turn.observation_ids), np.bool_)]
    ids_T, action_T = np.concatenate(parts), np.concatenate(actions)
    end = int(action_T.nonzero()[0][-1]) + 1 if action_T.any() else len(ids_T)
    return ids_T[:end], action_T[:end]


def _alike(rows: Sequence[IntArray], packed: bool) -> Tokens:
    """How many tokens two rows of a group begin with alike [G, G]; none where they are padded."""
    alike_GG = np.zeros((len(rows), len(rows)))
    if packed:
        for later in range(len(rows)):
            for earlier in range(later):
                alike_GG[later, earlier] = alike_GG[earlier, later] = common_beginning(rows[later], rows[earlier])
    return alike_GG
