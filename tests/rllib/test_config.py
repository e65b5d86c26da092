"""What a run's configuration brings to its learners, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from calibadv.methods import METHODS
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.stream import RolloutStream
from calibadv.types import Question
from tests.build import group, trajectory
from tests.rllib.conftest import settings


def no_search() -> Any:
    raise AssertionError("learners do not search")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_travels_to_learners_and_engines(name: str) -> None:
    method = METHODS[name]()
    assert cloudpickle.loads(cloudpickle.dumps(method)).name == method.name


def test_learners_know_model_method_and_coordinator_and_carry_no_stream(model_folder: Path) -> None:
    questions = [Question("train/0", "who?", ("Ada",))]
    method = METHODS["calibadv"]()
    stream = RolloutStream(settings(), method, model_folder, questions, questions, no_search, "coordinator")
    config = CalibAdvConfig().of_run(stream)
    assert config.copy().stream is stream  # not copied: it holds the run's questions
    learners = config.build_learner_group().config
    assert learners.stream is None
    assert (learners.model_folder, learners.coordinator, learners.method.value.name) == (
        str(model_folder),
        "coordinator",
        "calibadv",
    )


def test_mini_batches_are_drawn_anew_in_each_step_and_alike_in_equal_runs() -> None:
    groups = [group(*(trajectory(0.0, [1]) for _ in range(3))) for _ in range(2)]

    def drawn(version: int, *more: str) -> list[tuple[int, ...]]:
        algorithm = object.__new__(CalibAdvAlgorithm)
        algorithm.settings, algorithm.version = settings(*more), version
        algorithm.learner_group = SimpleNamespace(num_shards=1)  # type: ignore[assignment]
        (shard,) = algorithm.shards(groups)
        return [one.minibatch_G for one in shard]

    steps = [drawn(version) for version in range(8)]
    assert len({str(draw) for draw in steps}) > 1
    assert [drawn(version) for version in range(8)] == steps
    assert [drawn(version, "--run.seed=5") for version in range(8)] != steps
