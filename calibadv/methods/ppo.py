"""PPO as Search-R1 uses it: the outcome reward on the last token, a critic, and GAE over action tokens."""

from __future__ import annotations

from typing import Literal

import numpy as np

from calibadv.advantages.gae import reward_to_go
from calibadv.advantages.steps import step_slices
from calibadv.methods.method import Critic, Method
from calibadv.methods.reasons import Explanation, Reasons, Term
from calibadv.types import Credit, FloatArray, Group


def ppo(
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    critic: Literal["model", "head"] = "model",
    critic_lr: float | None = None,
    kl_reward: float = 0.0,
) -> Method:
    """Proximal Policy Optimization (Schulman et al. 2017; Search-R1, Jin et al. 2025).

    `critic` "model" is a second model that starts as a copy of the policy, "head" a linear map of the policy's own
    features, which it does not change. `critic_lr` None is the policy's peak; Search-R1 has 1e-5, ten times its
    policy's. `kl_reward` (Search-R1: 0.001) takes that much of log(π_old / π_reference) off each token's reward.
    ValueError for gamma or lam outside [0, 1], a learning rate that is not positive, or a negative KL weight.
    """
    return with_critic("ppo", Critic(outcome_rewards, critic, critic_lr, gamma, lam, kl_reward=kl_reward))


def with_critic(name: str, critic: Critic) -> Method:
    """The method of a critic and the rewards that it learns from. ValueError for what none can be trained with."""
    _check(critic)

    def advantages(group: Group) -> Credit:
        return [reward_to_go(rewards_N, critic.gamma) for rewards_N in critic.rewards(group)]

    return Method(
        name,
        advantages=advantages,
        explain=lambda group: _to_go_reasons(group, critic.rewards(group), critic.gamma),
        critic=critic,
    )


def outcome_rewards(group: Group) -> Credit:
    """The trajectory's reward on its last action token, 0 on all others. One row [N] a trajectory."""
    rows = [np.zeros(trajectory.num_actions, dtype=np.float32) for trajectory in group.trajectories]
    for row_N, trajectory in zip(rows, group.trajectories, strict=True):
        row_N[-1:] = trajectory.reward
    return rows


def _to_go_reasons(group: Group, rewards: Credit, gamma: float) -> Explanation:
    """Why a critic that says 0 gives each turn its credit: the rewards [N] still to come, a term each.

    Means over the turn's tokens, of which those further from a reward have less of it where `gamma` < 1.
    """
    note = "of a critic that says 0; what trained took the critic's values off it, and was whitened"
    rows = []
    for rewards_N, trajectory in zip(rewards, group.trajectories, strict=True):
        slices = step_slices(trajectory)
        names = [*(f"reward of turn {k + 1}" for k in range(len(slices) - 1)), "reward of the rollout"]
        rows.append(
            [
                Reasons(
                    tuple(
                        (Term(name, value),)
                        for name, later in zip(names[s:], slices[s:], strict=True)
                        if (value := _mean_to_go(rewards_N, tokens, later, gamma)) or later is slices[-1]
                    ),
                    note,
                )
                for s, tokens in enumerate(slices)
            ]
        )
    return rows


def _mean_to_go(rewards_N: FloatArray, tokens: slice, later: slice, gamma: float) -> float:
    """What of the rewards among the `later` tokens comes to one of `tokens`, in the mean; 0 without tokens."""
    ahead = np.arange(later.start, later.stop)[None] - np.arange(tokens.start, tokens.stop)[:, None]
    to_go = np.where(ahead >= 0, gamma ** np.maximum(ahead, 0), 0.0) @ rewards_N[later]
    return float(to_go.mean()) if len(to_go) else 0.0


def _check(critic: Critic) -> None:
    for name, value in (("gamma", critic.gamma), ("lam", critic.lam)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected a number in [0, 1] (1: nothing is discounted)")
    if critic.lr is not None and critic.lr <= 0:
        raise ValueError(f"critic_lr is {critic.lr}, expected a positive rate, or none for the policy's")
    if critic.kl_reward < 0:
        raise ValueError(f"kl_reward is {critic.kl_reward}, expected 0 or more (Search-R1: 0.001)")
