"""One update by a run's own learner, in this process, without a cluster: what the doctor tries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.rllib.core.learner.training_data import TrainingData

from calibadv.batching import shard_groups
from calibadv.config import Config
from calibadv.methods.method import StepFacts
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.learner import PolicyLearner
from calibadv.rllib.totals import step_metrics
from calibadv.types import Group


def one_update(config: Config, model: Path, groups: Sequence[Group]) -> dict[str, Any]:
    """The metrics of one update of the model with the groups, as a step reports them."""
    algorithm = CalibAdvConfig().of_learners(config, config.run_method(), str(model))
    spec = algorithm.get_default_rl_module_spec().as_multi_rl_module_spec()
    learner = PolicyLearner(config=algorithm, module_spec=spec)
    learner.build()
    (shard,) = shard_groups(list(groups), num_minibatches=1, num_shards=1, seed=config.run.seed)
    facts = StepFacts(mean_searches=1.0)
    return step_metrics([learner.update(TrainingData(episodes=shard), num_minibatches=1, facts=facts)])
