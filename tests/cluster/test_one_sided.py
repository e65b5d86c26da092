"""Weights that engines read from a learner's own memory: real NIXL between actors of one machine."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import OwnerDiedError, RayActorError, RayDirectTransportError

from calibadv.cluster.chunks import chunk_state
from calibadv.cluster.coordinator import create_coordinator
from calibadv.cluster.one_sided import OneSidedChunks, pull
from calibadv.cluster.packed import PackedWeights
from calibadv.cluster.weights import fetch
from calibadv.rollout.protocols import EngineDied
from tests.cluster.test_weights import state

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

CHUNK_BYTES = 100


class Noted(OneSidedChunks):
    """Knows which of the chunks that it has put are still there."""

    def __init__(self, seen: list[weakref.ref[torch.Tensor]]) -> None:
        super().__init__()
        self._seen = seen

    def put(self, chunk: torch.Tensor) -> ray.ObjectRef:
        self._seen.append(weakref.ref(chunk))
        return super().put(chunk)


@ray.remote
class Learner:
    """Publishes as a learner does: an actor that Ray knows nothing special of."""

    def __init__(self) -> None:
        self._chunks: list[weakref.ref[torch.Tensor]] = []

    def publish(self, value: float) -> PackedWeights:
        named = [*state(), ("version", torch.full((64,), value))]
        return chunk_state(iter(named), CHUNK_BYTES, torch.bfloat16, store=lambda _: Noted(self._chunks))

    def chunks_left(self) -> int:
        gc.collect()
        return sum(chunk() is not None for chunk in self._chunks)


@ray.remote
class Reader:
    """Reads as an engine does."""

    def read(self, packed: PackedWeights) -> dict[str, torch.Tensor]:
        return dict(fetch(packed))

    def die_reading(self, packed: PackedWeights) -> None:
        next(fetch(packed))
        os._exit(1)


def learner_and_reader() -> tuple[Any, Any]:
    return Learner.options(num_cpus=0).remote(), Reader.options(num_cpus=0).remote()


def test_an_engine_reads_what_the_learner_published() -> None:
    learner, reader = learner_and_reader()
    packed = ray.get(learner.publish.remote(1.0))
    assert packed.one_sided
    assert len(packed.chunks) > 2
    got = ray.get(reader.read.remote(packed))
    assert list(got) == [*(name for name, _ in state()), "version"]
    assert got["version"].tolist() == [1.0] * 64
    assert got["odd"].tolist() == [0, 1, 2]
    assert got["transposed"].shape == (6, 2)[::-1]
    assert got["fp32"].dtype == torch.bfloat16


def test_an_engine_that_dies_half_way_breaks_nothing() -> None:
    learner, reader = learner_and_reader()
    packed = ray.get(learner.publish.remote(2.0))
    with pytest.raises(RayActorError):
        ray.get(reader.die_reading.remote(packed))
    successor = Reader.options(num_cpus=0).remote()
    assert ray.get(successor.read.remote(packed))["version"].tolist() == [2.0] * 64
    assert ray.get(learner.publish.remote(3.0)).one_sided


def test_a_learner_keeps_the_newest_version_alone() -> None:
    learner, reader = learner_and_reader()
    coordinator = create_coordinator("one-sided")
    for version in range(4):
        ray.get(coordinator.publish.remote(version, ray.get(learner.publish.remote(float(version)))))
        packed = ray.get(coordinator.latest.remote()).weights
        assert ray.get(reader.read.remote(packed))["version"][0] == version
        chunks = len(packed.chunks)
        del packed
    deadline = time.monotonic() + 60
    while (left := ray.get(learner.chunks_left.remote())) > chunks and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == chunks


def test_the_chunks_of_a_dead_learner_are_an_error_at_once() -> None:
    learner, reader = learner_and_reader()
    packed = ray.get(learner.publish.remote(1.0))
    ray.kill(learner)
    with pytest.raises((OwnerDiedError, EngineDied)):  # Ray's word, or NIXL's
        ray.get(reader.read.remote(packed))


def test_a_read_that_fails_is_the_engines_death_in_nixls_own_words() -> None:
    def fails(_: ray.ObjectRef) -> torch.Tensor:
        raise RayDirectTransportError("it failed:\n Traceback\n  File ...\n nixlBackendError: NIXL_ERR_BACKEND\n")

    with pytest.raises(EngineDied, match=r"could not be read from the learner: nixlBackendError: NIXL_ERR_BACKEND$"):
        pull(ray.put(0), fails)


def test_an_agent_says_nothing() -> None:
    script = (
        "import calibadv.cluster.one_sided\n"
        "from nixl._api import nixl_agent, nixl_agent_config\n"
        "nixl_agent('quiet', nixl_agent_config(backends=['UCX']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
