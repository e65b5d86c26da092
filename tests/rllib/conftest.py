"""A run's configuration over a tiny model, small enough for unit tests of the learner."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.config import Config
from calibadv.methods import Method
from calibadv.rllib.config import CalibAdvConfig
from tests.build import configured
from tests.rollout.engine_suite import save_tiny_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def settings(*overrides: str) -> Config:
    """Two questions x three rollouts a step, two updates, a learning rate that moves the weights visibly."""
    small = {
        "data.questions_per_step": "2",
        "rollout.samples": "3",
        "learner.minibatch_rollouts": "3",
        "learner.lr": "1e-2",
        "learner.weight_decay": "0.0",
        "learner.token_budget": "40",
        "run.steps": "4",
    }
    arguments = [f"--{key}={value}" for key, value in small.items()]
    return configured(*arguments, *overrides)


def algorithm_config(model_folder: Path, config: Config, method: Method | None = None) -> CalibAdvConfig:
    """`method` in place of the configured one."""
    method = method or config.run_method()
    return CalibAdvConfig().of_learners(config, method, str(model_folder))
