"""Learners written to a checkpoint and read again train on as if nothing had happened; who cannot, is named."""

from __future__ import annotations

import copy
import random
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from calibadv.checkpoints.folders import Stored
from calibadv.checkpoints.manifest import Manifest
from calibadv.checkpoints.storage import Kind, Storage
from calibadv.rllib.learner import PolicyLearner
from calibadv.rllib.learner_state import (
    CheckpointFailed,
    load_learners,
    random_state,
    roll_back_learners,
    save_learners,
    set_random_state,
)
from calibadv.rllib.updater import load_replica_state, replica_state
from tests.rllib.conftest import settings
from tests.rllib.test_learner import GROUPS, make_learner, train, weights


class Learners:
    """A learner group in this process."""

    def __init__(self, learners: Sequence[Any]) -> None:
        self.learners = learners

    def call_all(self, function: Callable[[Any], Any]) -> list[Any]:
        return [function(learner) for learner in self.learners]


def saved(folder: Path, learners: Any, *, model: bool = False) -> Stored:
    draft = Storage(str(folder)).draft(Kind.CHECKPOINT, 1)
    return draft.commit(Manifest(1, len(learners.learners), save_learners(learners, draft, model=model)))


def everything(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.policy.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


CRITIC = ("--method.name=ppo", "--method.params.critic=model")
KL = ("--learner.kl_coef=0.1",)
# Saved where the critic has learned alone: the policy has no moments yet, and both rates are still to rise.
WARMING = (*CRITIC, "--learner.critic_only_steps=1", "--learner.warmup_steps=2", "--learner.critic_warmup_steps=2")


@pytest.mark.parametrize("options", [(), CRITIC, KL, WARMING], ids=["plain", "critic", "reference", "warming up"])
def test_a_new_process_trains_on_bit_for_bit(model_folder: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    first = make_learner(model_folder, settings(*options))
    train(first, GROUPS)
    stored = saved(tmp_path, Learners([first]))
    expected_random = (random.random(), float(np.random.random()), float(torch.rand(())))
    lr = train(first, GROUPS)["lr"]

    second = make_learner(model_folder, settings(*options))
    load_learners(Learners([second]), stored)  # type: ignore[arg-type]
    assert (random.random(), float(np.random.random()), float(torch.rand(()))) == expected_random
    assert train(second, GROUPS)["lr"] == lr  # the schedule counts updates
    assert_same(everything(first), everything(second))
    assert any(not torch.equal(a, b) for a, b in zip(weights(first).values(), initial(model_folder), strict=True))


def initial(folder: Path) -> list[torch.Tensor]:
    return list(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).parameters())


def test_the_frozen_reference_and_a_tied_weights_second_name_are_not_written(
    model_folder: Path, tmp_path: Path
) -> None:
    learner = make_learner(model_folder, settings(*KL))
    stored = saved(tmp_path, Learners([learner]))
    names = set(load_file(tmp_path / stored.name / "shared" / "tensors-00000.safetensors"))
    assert "weights.language_model.model.embed_tokens.weight" in names
    assert "weights.language_model.lm_head.weight" not in names
    assert not [name for name in names if "reference" in name]


def test_the_model_in_a_checkpoint_opens(model_folder: Path, tmp_path: Path) -> None:
    learner = make_learner(model_folder, settings("--model.dtype=float32"))
    train(learner, GROUPS)
    stored = saved(tmp_path, Learners([learner]), model=True)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / stored.name / "model")
    assert all(torch.equal(a, b) for a, b in zip(opened.parameters(), weights(learner).values(), strict=True))
    assert "model/config.json" in stored.manifest.files


def test_a_snapshot_brings_weights_and_moments_back_and_smaller_steps(model_folder: Path, tmp_path: Path) -> None:
    learner = make_learner(model_folder, settings("--learner.lr_final=1e-2"))
    group: Any = Learners([learner])
    train(learner, GROUPS)
    stored, good = saved(tmp_path, group), weights(learner)
    train(learner, GROUPS)
    after = weights(learner)
    roll_back_learners(group, stored, lr_scale=1.0)
    assert_same(good, weights(learner))
    train(learner, GROUPS)
    assert_same(after, weights(learner))
    roll_back_learners(group, stored, lr_scale=0.5)
    assert train(learner, GROUPS)["lr"] == pytest.approx(0.5e-2)
    roll_back_learners(group, stored, lr_scale=0.5)
    assert train(learner, GROUPS)["lr"] == pytest.approx(0.25e-2)
    resumed = make_learner(model_folder, settings("--learner.lr_final=1e-2"))
    load_learners(Learners([resumed]), saved(tmp_path / "later", group))  # type: ignore[arg-type]
    assert train(resumed, GROUPS)["lr"] == pytest.approx(0.25e-2)


def test_a_roll_back_leaves_the_schedule_where_it_is(model_folder: Path, tmp_path: Path) -> None:
    learner = make_learner(model_folder, settings())
    group: Any = Learners([learner])
    stored = saved(tmp_path, group)
    rates = [train(learner, GROUPS)["lr"] for _ in range(2)]
    roll_back_learners(group, stored, lr_scale=1.0)
    assert train(learner, GROUPS)["lr"] < rates[1] < rates[0]


def test_a_state_of_another_method_is_refused_by_the_learners_name(model_folder: Path, tmp_path: Path) -> None:
    stored = saved(tmp_path, Learners([make_learner(model_folder, settings())]))
    other: Any = Learners([make_learner(model_folder, settings(*CRITIC))])
    with pytest.raises(ValueError, match=r"learner 0 could not load .*step-000001 .*of another model or method"):
        load_learners(other, stored)


class Threads(Learners):
    """A learner group whose ranks run at once, and wait for each other."""

    def call_all(self, function: Callable[[Any], Any]) -> list[Any]:
        self.barrier, self.ready = threading.Barrier(len(self.learners)), list[bool]()
        for learner in self.learners:
            learner.meets = self
        with ThreadPoolExecutor(len(self.learners)) as pool:
            return list(pool.map(function, self.learners))

    def wait(self) -> None:
        self.barrier.wait(timeout=10)


class Shards:
    """A sharded learner: nothing is shared, each rank has its own part."""

    meets: Threads | None = None

    def __init__(self, rank: int, part: float = 0.0, error: Exception | None = None) -> None:
        self.rank, self.part, self.error = rank, torch.tensor([part]), error
        self.models: list[str] = []

    def all_ranks(self, ready: bool) -> bool:
        if self.meets is None:
            return ready
        self.meets.ready.append(ready)
        self.meets.wait()
        return all(self.meets.ready)

    def shared_state(self) -> Any:
        return {}

    def own_state(self) -> Any:
        if self.error:
            raise self.error
        return {"part": self.part}

    def load_state(self, shared: Any, own: Any) -> None:
        assert shared == {}
        if self.meets is not None:
            self.meets.wait()
        self.part = torch.tensor([-1.0]) if own is None else own["part"]

    def roll_back(self, shared: Any, own: Any, lr_scale: float) -> None:
        assert lr_scale == 0.5
        self.load_state(shared, own)

    def save_model(self, folder: str) -> None:
        if self.meets is not None:
            self.meets.wait()
        self.models.append(folder)


def test_every_rank_gets_its_own_part_again_and_a_new_rank_is_told(tmp_path: Path) -> None:
    stored = saved(tmp_path, Learners([Shards(0, 1), Shards(1, 2)]))
    fresh = [Shards(rank) for rank in range(3)]
    load_learners(Learners(fresh), stored)  # type: ignore[arg-type]
    assert [float(learner.part) for learner in fresh] == [1, 2, -1]


def test_all_ranks_have_a_part_in_gathering_the_model(tmp_path: Path) -> None:
    ranks = [Shards(0), Shards(1)]
    saved(tmp_path, Learners(ranks), model=True)
    assert [len(learner.models) for learner in ranks] == [1, 1]


def test_each_rank_that_cannot_write_is_named_and_the_others_are_asked_too(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device")
    learners: Any = Learners([Shards(0), Shards(1, error=full), Shards(2, error=full)])
    with pytest.raises(CheckpointFailed) as caught:
        saved(tmp_path, learners)
    why = r"could not write its part (OSError: [Errno 28] No space left on device)"
    assert str(caught.value) == f"learner 1 {why}; learner 2 {why}"
    assert Storage(str(tmp_path)).newest()[0] is None


@pytest.mark.parametrize("broken", [0, 1])
def test_a_rank_that_cannot_write_its_part_still_helps_to_gather_the_model(tmp_path: Path, broken: int) -> None:
    ranks = [Shards(rank, error=OSError("full") if rank == broken else None) for rank in range(2)]
    with pytest.raises(CheckpointFailed) as caught:
        saved(tmp_path, Threads(ranks), model=True)
    assert str(caught.value) == f"learner {broken} could not write its part (OSError: full)"
    assert [len(learner.models) for learner in ranks] == [1, 1]


def test_so_does_rank_0_without_a_folder_for_the_model(tmp_path: Path) -> None:
    ranks, draft = [Shards(0), Shards(1)], Storage(str(tmp_path)).draft(Kind.CHECKPOINT, 1)
    (draft.path / "model").touch()
    with pytest.raises(CheckpointFailed, match=r"^learner 0 could not write its part \(FileExistsError: [^;]*\)$"):
        save_learners(Threads(ranks), draft, model=True)  # type: ignore[arg-type]
    assert [learner.models for learner in ranks] == [[""], [""]]


@pytest.mark.parametrize("take_up", [load_learners, lambda *given: roll_back_learners(*given, lr_scale=0.5)])
def test_where_a_rank_cannot_read_none_takes_its_state_up(tmp_path: Path, take_up: Callable[..., None]) -> None:
    stored = saved(tmp_path, Learners([Shards(0, 1), Shards(1, 2)]))
    fresh = [Shards(0), Shards(1)]
    take_up(Threads(fresh), stored)
    assert [float(learner.part) for learner in fresh] == [1, 2]
    (tmp_path / stored.name / "rank-1" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^learner 1 could not [^;]*its hash differs[^;]*$"):
        take_up(Threads(fresh := [Shards(0), Shards(1)]), stored)
    assert [float(learner.part) for learner in fresh] == [0, 0]


def test_every_generator_goes_on_where_it_was() -> None:
    def drawn() -> list[float]:
        normal = float(np.random.normal())  # keeps a second one for the next call
        return [random.gauss(0, 1), normal, float(np.random.random()), float(torch.rand(()))]

    drawn()
    state = random_state()
    expected = [drawn(), drawn()]
    set_random_state(state)
    assert [drawn(), drawn()] == expected


class MomentsAlive(TorchDispatchMode):
    """How many of the watched tensors are there each time that a tensor is cast, which makes another one."""

    def __init__(self, watched: list[weakref.ref[torch.Tensor]]) -> None:
        super().__init__()
        self.watched, self.alive = watched, Counter[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name == "aten::_to_copy":
            self.alive[sum(tensor() is not None for tensor in self.watched)] += 1
        return func(*args, **(kwargs or {}))


def test_old_moments_are_gone_before_those_of_a_snapshot_are_made() -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    snapshot = copy.deepcopy(replica_state(module, {"policy": optimizer}))
    for moments in snapshot["optimizers"]["policy"]["state"].values():  # in another dtype, as on another device
        moments |= {name: moments[name].double() for name in ("exp_avg", "exp_avg_sq")}
    old = [weakref.ref(moments[name]) for moments in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    with MomentsAlive(old) as seen:
        load_replica_state(snapshot, module, {"policy": optimizer})
    assert seen.alive == {0: 4}  # two of the weight and two of the bias
    for parameter, moments in zip(module.parameters(), snapshot["optimizers"]["policy"]["state"].values(), strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moments["exp_avg"].float())
