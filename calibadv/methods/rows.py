"""A group's rows with what the method gives them: credit, weights, its own loss term's, and a critic's advantages.

N action tokens of a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from calibadv.advantages.gae import gae
from calibadv.advantages.group import STD_EPSILON
from calibadv.batching import GroupShard, Row, to_row
from calibadv.methods.keep import kept_groups
from calibadv.methods.method import Critic, Method, StepFacts
from calibadv.types import Credit, FloatArray, Group, TurnKind


def step_facts(groups: Sequence[Group]) -> StepFacts:
    """What a method may want to know of the whole step, of which nothing may be left to train."""
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    searches = sum(turn.kind is TurnKind.SEARCH for trajectory in trajectories for turn in trajectory.turns)
    rewards = [np.array([t.reward for t in group.trajectories], dtype=np.float64) for group in groups]
    means = [rewards_G.mean() if len(rewards_G) > 1 else 0.0 for rewards_G in rewards]  # of one: as `group_advantages`
    squares = sum(float(((rewards_G - mean) ** 2).sum()) for rewards_G, mean in zip(rewards, means, strict=True))
    deviation = float(np.sqrt(squares / max(len(trajectories) - 1, 1)))
    return StepFacts(mean_searches=searches / max(len(trajectories), 1), deviation=deviation)


def step_credit(group: Group, method: Method, facts: StepFacts) -> Credit:
    """The method's credit of a group, on the scale of the step where the method's is. One row [N] a trajectory."""
    credit = method.advantages(group)
    return _scaled(credit, facts) if method.by_step_deviation else credit


def step_base(groups: Sequence[Group], method: Method) -> Callable[[Group], Credit]:
    """Gives of each of a step's groups the credit before calibration, on the scale of `step_credit`."""
    if not method.by_step_deviation:
        return method.base
    facts = step_facts(kept_groups(groups, method))
    return lambda group: _scaled(method.base(group), facts)


def _scaled(credit: Credit, facts: StepFacts) -> Credit:
    scale = np.float32(1 / (facts.deviation + STD_EPSILON))
    return [row_N * scale for row_N in credit]


def credit_rows(shard: GroupShard, method: Method, facts: StepFacts) -> list[Row]:
    """A row for each rollout that trains here, with the method's credit and weights, computed on the whole group."""
    group, trained = shard.group, shard.trained
    credit = step_credit(group, method, facts)
    weights = method.weights(group) if method.weights else [None] * len(credit)
    rows = [to_row(group.trajectories[i], credit[i], shard.minibatch_G[i], weights[i]) for i in trained]
    if shard.later_PG:
        later_GP = list(zip(*shard.later_PG, strict=True))
        rows = [replace(row, later_minibatches=later_GP[i]) for row, i in zip(rows, trained, strict=True)]
    if (extra := method.extra_loss) is None:
        return rows
    weights_GN, counts_GN = extra.weights(group, credit, facts), extra.counts(group, credit)
    return [
        replace(row, extra_weights_N=weights_GN[i], extra_counts_N=counts_GN[i])
        for row, i in zip(rows, trained, strict=True)
    ]


def critic_row(row: Row, rewards_N: FloatArray, out: Mapping[str, FloatArray], critic: Critic) -> Row:
    """The row with GAE's advantages and returns from the critic's values at the step's start, not yet whitened.

    `out` has `values_N`, and `reference_logprobs_N` where the critic takes a KL off the rewards.
    """
    if critic.kl_reward:
        rewards_N = rewards_N - critic.kl_reward * (row.old_logprobs_N - out["reference_logprobs_N"])
    values_N = out["values_N"]
    advantages_N = gae(rewards_N, values_N, gamma=critic.gamma, lam=critic.lam)
    return replace(row, advantages_N=advantages_N, values_N=values_N, returns_N=advantages_N + values_N)


def critic_rewards(shards: Sequence[GroupShard], critic: Critic) -> list[FloatArray]:
    """Token rewards [N] of every rollout that trains here, in the order of the groups' rows."""
    return [rewards[i] for shard in shards for rewards in [critic.rewards(shard.group)] for i in shard.trained]
