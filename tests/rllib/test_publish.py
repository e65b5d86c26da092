"""Which way weights go, and what each rank gives to a publication."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from calibadv.cluster.chunks import StoredChunks
from calibadv.cluster.device_copy import DeviceCopy
from calibadv.cluster.one_sided import OneSidedChunks
from calibadv.cluster.packed import PackedWeights, SharedCopy, TensorSpec
from calibadv.config import ConfigError
from calibadv.rllib.publish import copy_of_learner, pack_on_ranks, shares_memory, store_of_learner, with_copies
from tests.build import configured

COLOCATED = (
    "--rollout.placement=colocated",
    "--cluster.gpus_per_engine=0.6",
    "--learner.gpus_per_learner=0.4",
    "--learner.learners=1",
)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("overrides", "shares"),
    [
        ((), False),
        (COLOCATED, True),
        ((*COLOCATED, "--rollout.weight_transfer=cuda_ipc"), True),
        ((*COLOCATED, "--rollout.weight_transfer=object_store"), False),
        ((*COLOCATED, "--rollout.engine_process=true"), False),  # the core is given them through main memory
    ],
)
def test_memory_is_shared_where_engine_and_learner_are_on_one_gpu(overrides: tuple[str, ...], shares: bool) -> None:
    assert shares_memory(configured(*overrides), torch.device("cuda:0")) == shares
    assert not shares_memory(configured(*overrides), CPU)
    assert copy_of_learner(configured(*overrides), CPU) is None


def test_ipc_between_two_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="'cuda_ipc' is between an engine and a learner on one GPU"):
        configured("--rollout.weight_transfer=cuda_ipc")
    with pytest.raises(ConfigError, match=r"'cuda_ipc' with rollout\.engine_process = true, whose core"):
        configured(*COLOCATED, "--rollout.weight_transfer=cuda_ipc", "--rollout.engine_process=true")


def test_weights_stay_with_the_learner_where_engines_are_to_read_them() -> None:
    one_sided = store_of_learner(configured("--rollout.weight_transfer=nixl"))(8)
    assert isinstance(one_sided, OneSidedChunks)
    for overrides in ((), COLOCATED, ("--rollout.weight_transfer=object_store",)):
        assert store_of_learner(configured(*overrides)) is StoredChunks
    with pytest.raises(ConfigError, match="'nixl' is from one GPU to others"):
        configured(*COLOCATED, "--rollout.weight_transfer=nixl")


def weights(seen: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for name in ("a", "b"):
        seen.append(name)
        yield name, torch.ones(2)


def test_ranks_without_a_copy_give_nothing_and_run_through_all() -> None:
    seen: list[str] = []
    assert pack_on_ranks(1, weights(seen), torch.float32, None) is None
    assert seen == ["a", "b"]


def test_ranks_with_a_copy_keep_what_rank_0_stores() -> None:
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    packed = pack_on_ranks(1, weights([]), torch.bfloat16, DeviceCopy(CPU))
    assert packed is not None
    assert packed.chunks == ()
    assert [spec.dtype for spec in packed.manifest] == ["bfloat16", "bfloat16"]
    assert len(packed.copies) == 1


def test_a_rank_that_fails_does_not_leave_the_others_waiting() -> None:
    class Full(DeviceCopy):
        def add(self, parts: object) -> None:  # noqa: ARG002
            raise OSError("no room")

    seen: list[str] = []
    with pytest.raises(OSError, match="no room"):
        pack_on_ranks(1, weights(seen), torch.float32, Full(CPU))
    assert seen == ["a", "b"]


def test_copies_of_all_ranks_go_with_the_chunks_of_rank_0() -> None:
    manifest = (TensorSpec("a", "float32", (2,), 0, 0, 8),)
    copies = [SharedCopy(f"gpu {n}", "cuda:0", n, (b"",)) for n in range(3)]
    stored = PackedWeights(("ref",), manifest, (copies[0],))
    other = (TensorSpec("a", "float32", (2,), 1, 0, 8),)
    packed = with_copies(
        [stored, None, PackedWeights((), manifest, (copies[1],)), PackedWeights((), other, (copies[2],))]
    )
    assert packed.chunks == ("ref",)
    assert packed.copies == (copies[0], copies[1])  # the third cut its chunks differently
