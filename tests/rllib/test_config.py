"""What a run's configuration brings to its learners, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from calibadv.methods import METHODS
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.stream import RolloutStream
from calibadv.types import Question
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
