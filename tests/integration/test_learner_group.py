"""0, 1 and 2 learners make the same update, and what fails in one rank is raised in the driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from calibadv.batching import shard_groups
from calibadv.cluster.weights import fetch
from calibadv.rllib.learner_group import PolicyLearnerGroup
from calibadv.rllib.totals import step_metrics
from calibadv.types import Group
from tests.build import group, trajectory
from tests.rllib.conftest import algorithm_config, settings
from tests.rollout.engine_suite import save_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

# Of unequal length and number of turns, so that two learners get unequal shards and mini-batches.
GROUPS = [
    group(trajectory(1.0, [3, 2], [["a", "b"]]), trajectory(0.0, [4, 2], [["a"]]), trajectory(0.5, [2, 5], [["c"]])),
    group(trajectory(0.0, [2, 2]), trajectory(1.0, [5, 1], [["d"]]), trajectory(0.0, [1, 1], [["d", "e"]])),
    group(trajectory(0.0, [9, 9, 9]), trajectory(1.0, [1]), trajectory(0.0, [2])),
]
LR = 1e-3
SMALL = ("--data.questions_per_step=3", "--learner.minibatch_rollouts=3", "--model.dtype=float32", f"--learner.lr={LR}")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def learner_group(model_folder: Path, learners: int, *more: str) -> PolicyLearnerGroup:
    config = algorithm_config(model_folder, settings(*SMALL, f"--learner.learners={learners}", *more))
    return config.build_learner_group(rl_module_spec=config.get_default_rl_module_spec())


def train(learners: PolicyLearnerGroup, groups: list[Group]) -> list[dict[str, Any]]:
    shards = shard_groups(groups, num_minibatches=3, num_shards=learners.num_shards, seed=0)
    return learners.update_shards(shards, num_minibatches=3)


def weights(learners: PolicyLearnerGroup) -> list[dict[str, torch.Tensor]]:
    """Of every rank."""

    def read(learner: Any) -> dict[str, np.ndarray]:
        model = learner.module["default_policy"].language_model
        return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}

    return [{name: torch.tensor(array) for name, array in rank.items()} for rank in learners.call_all(read)]


@pytest.fixture(scope="module")
def local(model_folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, float]]:
    """The update in the driver: weights before and after a step of three mini-batches, and its metrics."""
    learners = learner_group(model_folder, 0)
    (before,) = weights(learners)
    before = {name: tensor.clone() for name, tensor in before.items()}
    metrics = step_metrics(train(learners, GROUPS))
    return before, weights(learners)[0], metrics


@pytest.mark.parametrize("learners", [1, 2])
def test_any_number_of_learners_makes_the_same_update(model_folder: Path, local: Any, learners: int) -> None:
    before, after, metrics = local
    # Far more than the tolerance below, or equal weights would say nothing.
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-3
    remote = learner_group(model_folder, learners)
    try:
        totals = train(remote, GROUPS)
        assert len(totals) == learners
        for rank in weights(remote):
            for name, tensor in rank.items():
                # A key's bias shifts all scores alike: its gradient is rounding, of which Adam makes steps of the rate.
                atol = LR if name.endswith("k_proj.bias") else 1e-5
                torch.testing.assert_close(tensor, after[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
        assert step_metrics(totals) == pytest.approx(metrics, rel=1e-3)
        assert step_metrics(totals)["learner/updates"] == 3
        packed = remote.call_all(lambda learner: learner.pack_weights(torch.float32))
        assert [part is not None for part in packed] == [True] + [False] * (learners - 1)  # rank 0 alone publishes
        published = dict(fetch(packed[0]))
        torch.testing.assert_close(published["model.norm.weight"], after["model.norm.weight"], rtol=0, atol=1e-5)
        del packed, published
        check_failures(remote)
    finally:
        remote.shutdown()


def check_failures(learners: PolicyLearnerGroup) -> None:
    """An error in the last rank alone is raised, whatever the others answer; and after it the group still trains."""
    last = learners.num_shards - 1

    def fail_in_the_last_rank(_: Any) -> str:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        if rank == last:
            raise ValueError(f"rank {rank} cannot")
        return "fine"

    with pytest.raises(ValueError, match=f"rank {last} cannot"):
        learners.call_all(fail_in_the_last_rank)
    assert len(train(learners, GROUPS)) == learners.num_shards


def test_a_learner_without_rows_takes_part_in_every_update(model_folder: Path) -> None:
    results = []
    for learners in (0, 2):
        some = learner_group(model_folder, learners)
        train(some, GROUPS[:1])  # one group: the second learner has none
        results += weights(some)
        some.shutdown()
    for rank in results[1:]:
        for name, tensor in rank.items():
            torch.testing.assert_close(tensor, results[0][name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["ppo", "lld"])
def test_critics_and_own_loss_terms_do_not_depend_on_the_number_of_learners(model_folder: Path, method: str) -> None:
    results, metrics = [], []
    for learners in (0, 2):
        some = learner_group(model_folder, learners, f"--method.name={method}")
        totals = train(some, GROUPS)  # whitened, and divided, by what both learners hold
        metrics.append(step_metrics(totals))
        results += weights(some)
        some.shutdown()
    assert {"ppo": "learner/value_loss", "lld": "learner/extra_loss"}[method] in metrics[0]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-3, abs=1e-6)
    for rank in results[1:]:
        for name, tensor in rank.items():
            torch.testing.assert_close(tensor, results[0][name], rtol=0, atol=1e-5)


def test_an_error_in_the_update_of_one_rank_is_raised(model_folder: Path) -> None:
    learners = learner_group(model_folder, 1)
    try:
        with pytest.raises(ray.exceptions.RayTaskError, match="out of step"):
            train(learners, [broken(GROUPS[0])])
    finally:
        learners.shutdown()


def broken(members: Group) -> Group:
    """The group with a log-prob too few in its first turn."""
    from dataclasses import replace

    first, *others = members.trajectories
    cut = replace(first.turns[0], logprobs=first.turns[0].logprobs[1:])
    return replace(members, trajectories=(replace(first, turns=(cut, *first.turns[1:])), *others))
