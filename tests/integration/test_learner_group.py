"""0, 1 and 2 learners make the same update; what fails in one rank is raised in the driver, and one that dies ends all.

A learner takes many seconds of a core to start, so that one group serves all that can be asked of it, its death last,
and two processes serve all groups of two: they make other learners (`anew`).
What becomes of a run whose learner dies: test_training.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from calibadv.batching import shard_groups
from calibadv.cluster.weights import fetch
from calibadv.rllib import learner_group as learner_group_of
from calibadv.rllib.learner_group import PolicyLearnerGroup
from calibadv.rllib.lost import LearnersLost, recoverable
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


@pytest.fixture(scope="module")
def two(local_ray: None, model_folder: Path) -> Iterator[PolicyLearnerGroup]:  # noqa: ARG001
    """Two processes for the learners of a module's groups of two."""
    learners = learner_group(model_folder, 2)
    yield learners
    learners.shutdown()


def anew(learners: PolicyLearnerGroup, model_folder: Path, *more: str) -> PolicyLearnerGroup:
    """The group, whose processes have made new learners with these settings in place of theirs."""
    given = settings(*SMALL, f"--learner.learners={learners.num_shards}", *more)
    config = algorithm_config(model_folder, given)
    spec = MultiRLModuleSpec(rl_module_specs={DEFAULT_MODULE_ID: config.get_default_rl_module_spec()})

    def make(learner: Any) -> None:
        learner.__init__(config=config, module_spec=spec)
        learner.build()

    learners.call_all(make)
    return learners


def train(learners: PolicyLearnerGroup, groups: list[Group]) -> list[dict[str, Any]]:
    shards = shard_groups(groups, num_minibatches=3, num_shards=learners.num_shards, seed=0)
    return learners.update_shards(shards, num_minibatches=3)


def weights(learners: PolicyLearnerGroup) -> list[dict[str, torch.Tensor]]:
    """Of every rank."""

    def read(learner: Any) -> dict[str, np.ndarray]:
        model = learner.module["default_policy"].language_model
        return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}

    return [{name: torch.tensor(array) for name, array in rank.items()} for rank in learners.call_all(read)]


class Step(NamedTuple):
    """What a step came to: the weights after it, and its metrics."""

    weights: dict[str, torch.Tensor]
    metrics: dict[str, float]


def made(learners: PolicyLearnerGroup, groups: list[Group]) -> Step:
    """The step of a group of one; every other rank has the same weights."""
    metrics = step_metrics(train(learners, groups))
    first, *others = weights(learners)
    for rank in others:
        assert_close(rank, first)
    return Step({name: tensor.clone() for name, tensor in first.items()}, metrics)


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name, tensor in ours.items():
        # A key's bias shifts all scores alike: its gradient is rounding, of which Adam makes steps of the rate.
        atol = 2 * LR if name.endswith("k_proj.bias") else 1e-5
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


# A group with rows for every learner, and one for the first alone.
STEPS = (GROUPS, GROUPS[:1])


def steps_in_the_driver(model_folder: Path, *more: str) -> tuple[dict[str, torch.Tensor], list[Step]]:
    """The weights before, and what each of `STEPS` comes to, without a remote learner."""
    learners = learner_group(model_folder, 0, *more)
    (before,) = weights(learners)
    before = {name: tensor.clone() for name, tensor in before.items()}
    return before, [made(learners, groups) for groups in STEPS]


def check_steps(remote: PolicyLearnerGroup, model_folder: Path, *more: str) -> Step:
    """Every step comes to what it comes to in the driver; the last one."""
    before, steps = steps_in_the_driver(model_folder, *more)
    # Far more than the tolerance, or equal weights would say nothing.
    assert max(float((steps[0].weights[name] - before[name]).abs().max()) for name in before) > 1e-3
    for groups, expected in zip(STEPS, steps, strict=True):
        ours = made(remote, groups)
        assert_close(ours.weights, expected.weights)
        assert ours.metrics == pytest.approx(expected.metrics, rel=1e-3, abs=1e-6)
        assert ours.metrics["learner/updates"] == 3
    return steps[-1]


def check_publication(remote: PolicyLearnerGroup, trained: Step) -> None:
    packed = remote.call_all(lambda learner: learner.pack_weights(torch.float32))
    assert [part is not None for part in packed] == [True] + [False] * (remote.num_shards - 1)  # rank 0 alone
    published = dict(fetch(packed[0]))
    name = "model.norm.weight"
    torch.testing.assert_close(published[name], trained.weights[name], rtol=0, atol=1e-5)


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


def test_one_learner_makes_the_update_of_none_and_its_errors_and_its_death_are_raised(model_folder: Path) -> None:
    one = learner_group(model_folder, 1, "--rollout.weight_transfer=nixl")
    try:
        check_publication(one, check_steps(one, model_folder))
        check_failures(one)
        with pytest.raises(ray.exceptions.RayTaskError, match="out of step"):
            train(one, [broken(GROUPS[0])])
        pids = one.call_all(dies_in_the_second_mini_batch)
        with pytest.raises(LearnersLost, match=r"learner 0 was lost \(ActorDiedError: "):
            train(one, GROUPS)
        assert alive(pids) == []
        check_gone(one, "learner 0 was lost")
    finally:
        one.shutdown()


def test_two_learners_whiten_what_both_hold_and_train_one_critic(two: PolicyLearnerGroup, model_folder: Path) -> None:
    ppo = "--method.name=ppo"
    assert "learner/value_loss" in check_steps(anew(two, model_folder, ppo), model_folder, ppo).metrics


def test_two_learners_with_a_loss_term_of_their_own_make_one_update_and_end_together(
    two: PolicyLearnerGroup, model_folder: Path
) -> None:
    lld = "--method.name=lld"
    anew(two, model_folder, lld)
    trained = check_steps(two, model_folder, lld)
    assert "learner/extra_loss" in trained.metrics
    assert all(two.call_all(lambda _: ray.util.get_current_placement_group() is not None))
    check_publication(two, trained)
    check_failures(two)
    pids = two.call_all(lambda _: os.getpid())
    assert two.lost() is None
    assert not two.gone
    said = r"learner 1 was lost \(ActorDiedError: .*; the other one is ended with it"
    with pytest.raises(LearnersLost, match=said):
        two.call_all(is_killed_while_the_other_waits)
    assert alive(pids) == []
    check_gone(two, "learner 1 was lost")


@ray.remote(num_cpus=0)
class Worker:
    """A learner's process, without a learner."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def apply(self, function: Any) -> Any:
        return function(self)


class OfWorkers(PolicyLearnerGroup):
    is_local, num_shards, _is_shut_down = False, 2, True
    _workers: Any = ()

    def __init__(self) -> None:
        self._workers = [Worker.remote(rank) for rank in range(2)]


def test_a_group_that_ends_of_an_error_has_lost_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_while_the_other_waits(worker: Any) -> None:
        if worker.rank == 1:
            raise ValueError("a user's surrogate: bad shape")
        time.sleep(3600)

    monkeypatch.setattr(learner_group_of, "OTHERS_S", 0.5)
    learners = OfWorkers()
    for function in (fails_while_the_other_waits, lambda _: None):
        with pytest.raises(ValueError, match="bad shape") as caught:
            learners.call_all(function)
        assert not recoverable(caught.value)
        assert learners.lost() is None
        assert learners.gone


def broken(members: Group) -> Group:
    """The group with a log-prob too few in its first turn."""
    first, *others = members.trajectories
    cut = replace(first.turns[0], logprobs=first.turns[0].logprobs[1:])
    return replace(members, trajectories=(replace(first, turns=(cut, *first.turns[1:])), *others))


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that have not ended some time from now: Ray's `kill` does not wait."""
    _, left = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=120)
    return [process.pid for process in left]


def dies_in_the_second_mini_batch(learner: Any) -> int:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    learner._updater.step = die
    return os.getpid()


def is_killed_while_the_other_waits(_: Any) -> None:
    if torch.distributed.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


def check_gone(learners: PolicyLearnerGroup, words: str) -> None:
    """Whoever asks again is told the same at once, and it can be put away."""
    assert words in str(learners.lost())
    with pytest.raises(LearnersLost, match=words):
        learners.call_all(lambda _: None)
    with pytest.raises(LearnersLost, match=words):
        train(learners, GROUPS)
    learners.shutdown()
