"""StepSearch: PPO whose searches are rewarded for the evidence that they add.

step_scale * (gain - redundancy) on the last token of each search, F1 + key_weight * key score on the last token
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from calibadv.advantages.steps import step_slices
from calibadv.methods.method import Critic, Method
from calibadv.methods.ppo import with_critic
from calibadv.rewards.gold_match import GoldNeed
from calibadv.rewards.step_search import step_search_rewards
from calibadv.rewards.turns import at_once
from calibadv.types import Credit, FloatArray, Group, Trajectory


def stepsearch(
    *,
    step_scale: float = 0.6,
    key_weight: float = 0.618,
    normalise_texts: bool = False,
    min_gold: float = 0.5,
    gamma: float = 1.0,
    lam: float = 1.0,
    critic: Literal["model", "head"] = "model",
    critic_lr: float | None = None,
    kl_reward: float = 0.0,
) -> Method:
    """Step-wise proximal policy optimization (StepSearch, Wang et al. 2025), over the rewards of `rewards.step_search`.

    `step_scale` 0.6 is what the released code sets; by an aliasing slip it trains with 1.6. `critic` and the rest are
    PPO's; the official recipe has `critic_lr` = 5e-7 and `kl_reward` = 0.001. `normalise_texts` normalises documents
    and gold passages before their TF-IDF as answers are: copies of the code differ in it. Questions need gold
    sub-queries and the texts of gold passages: a question without them has no key score and no rewards at its searches,
    and training is refused where less than `min_gold` of them are known. ValueError for a negative scale or weight, and
    for what `ppo` refuses.
    """
    for name, value in (("step_scale", step_scale), ("key_weight", key_weight)):
        if value < 0:
            raise ValueError(f"{name} is {value}, expected 0 or more (0 leaves that reward out)")

    def rewards(group: Group) -> Credit:
        return [_token_rewards(trajectory, step_scale) for trajectory in group.trajectories]

    return replace(
        with_critic("stepsearch", Critic(rewards, critic, critic_lr, gamma, lam, kl_reward=kl_reward)),
        score_turns=at_once(partial(step_search_rewards, key_weight=key_weight, normalise_texts=normalise_texts)),
        gold=GoldNeed("texts", min_gold),
    )


def _token_rewards(trajectory: Trajectory, step_scale: float) -> FloatArray:
    """Each turn's reward on its last token; the last turn's is the trajectory's and is not scaled. Shape [N]."""
    row_N = np.zeros(trajectory.num_actions, dtype=np.float32)
    for tokens, turn in zip(step_slices(trajectory)[:-1], trajectory.turns[:-1], strict=True):
        row_N[tokens.stop - 1] = step_scale * turn.reward
    row_N[-1] += trajectory.turns[-1].reward
    return row_N
