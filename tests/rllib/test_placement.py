"""What staleness and placement ask of the rest of a configuration, in words."""

from __future__ import annotations

import pytest

from calibadv.config import ConfigError
from tests.build import configured

GPUS = (
    "--rollout.placement=colocated",
    "--cluster.gpus_per_engine=0.6",
    "--learner.gpus_per_learner=0.4",
    "--learner.learners=4",
    "--rollout.engines=4",
)


def test_recomputed_log_probs_of_an_older_policy_need_an_importance_cap() -> None:
    stale = ("--rollout.max_staleness=1", "--learner.old_logprobs=recompute")
    with pytest.raises(ConfigError, match=r"set learner\.importance_cap"):
        configured(*stale)
    assert configured(*stale, "--learner.importance_cap=2.0").rollout.max_staleness == 1
    assert configured("--rollout.max_staleness=1").learner.old_logprobs == "sampler"


def test_a_colocated_run_has_one_engine_and_one_learner_on_a_gpu() -> None:
    assert configured(*GPUS).rollout.placement == "colocated"
    assert configured(*GPUS, "--learner.learners=2", "--learner.zero=2").learner.learners == 2
    assert configured("--rollout.placement=colocated", "--cluster.gpus_per_engine=0").learner.learners == 0  # on CPUs


def test_a_learner_in_the_driver_has_no_gpu_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"^learner.gpus_per_learner = 1 with learner.learners = 0: .* set .* to 1$"):
        configured("--learner.gpus_per_learner=1")
    assert configured("--learner.gpus_per_learner=1", "--learner.learners=1").learner.learners == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--rollout.max_staleness=1", r"rollout\.max_staleness = 1: set it to 0"),
        ("--rollout.tensor_parallel=2", r"rollout\.tensor_parallel = 2: set it to 1"),
        ("--cluster.gpus_per_engine=0.5", "above 0.5 and both together 1"),
        ("--learner.gpus_per_learner=0.5", "above 0.5 and both together 1"),
        ("--learner.gpus_per_learner=0.2", "above 0.5 and both together 1"),  # two learners would fit beside an engine
        ("--learner.learners=5", "set from 1 to 4 learners"),
        ("--learner.learners=0", "set from 1 to 4 learners"),
    ],
)
def test_what_cannot_be_colocated_is_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configured(*GPUS, override)
