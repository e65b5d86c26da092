"""Learning rates of the updates of a run: warm-up, cosine, and steps in which the critic alone learns.

Updates are counted from 0 over the whole run; U updates a training step.
"""

from __future__ import annotations

import math

from calibadv.config import Config


def policy_rate(config: Config, update: int) -> float:
    """The policy's rate at an update.

    0 while the critic learns alone; then lr * (i + 1) / W at the i-th of the warm-up's W updates; then a cosine from lr
    to lr_final over what is left of the run, and lr_final after that.
    """
    learner, updates = config.learner, config.updates_per_step
    begin, warm = learner.critic_only_steps * updates, learner.warmup_steps * updates
    if update < begin:
        return 0.0
    if update < begin + warm:
        return learner.lr * (update - begin + 1) / warm
    left = config.run.steps * updates - begin - warm
    progress = min((update - begin - warm) / max(left, 1), 1.0)
    low, high = learner.lr_final, learner.lr
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2


def critic_rate(config: Config, peak: float, update: int) -> float:
    """The critic's rate at an update: rises over `critic_warmup_steps`, then stays at `peak`."""
    warm = config.learner.critic_warmup_steps * config.updates_per_step
    return peak * min((update + 1) / warm, 1.0) if warm else peak
