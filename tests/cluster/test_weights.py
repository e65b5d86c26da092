"""Weights through the object store, and the coordinator that announces them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import ray
import torch

from calibadv.cluster.chunks import chunk_state
from calibadv.cluster.coordinator import create_coordinator, find_coordinator
from calibadv.cluster.processes import EngineProcess
from calibadv.cluster.weights import fetch

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def state() -> list[tuple[str, torch.Tensor]]:
    return [
        ("odd", torch.arange(3, dtype=torch.uint8)),
        ("fp32", torch.randn(5, 7)),
        ("bf16", torch.randn(4, 3).to(torch.bfloat16)),
        ("transposed", torch.randn(6, 2).T),
        ("scalar", torch.tensor(2.5)),
        ("empty", torch.zeros(0, 4)),
    ]


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**6])
def test_fetched_tensors_are_the_given_ones(chunk_bytes: int) -> None:
    given = state()
    packed = chunk_state(given, chunk_bytes)
    got = list(fetch(packed))
    assert [name for name, _ in got] == [name for name, _ in given]
    for (_, ours), (_, theirs) in zip(got, given, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_all_chunks_are_on_their_way_before_the_first_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = chunk_state([(str(i), torch.full((10,), float(i))) for i in range(3)], 1)
    asked: list[Sequence[ray.ObjectRef]] = []
    wait = ray.wait

    def noted(refs: list[ray.ObjectRef], **how: Any) -> Any:
        asked.append(refs)
        return wait(refs, **how)

    monkeypatch.setattr(ray, "wait", noted)
    name, first = next(fetch(packed))
    assert (name, first.tolist(), asked) == ("0", [0.0] * 10, [list(packed.chunks)])
    assert len(packed.chunks) == 3
    assert list(fetch(chunk_state([]))) == []


def test_chunks_stay_below_their_limit_and_tensors_are_never_cut() -> None:
    packed = chunk_state([(str(i), torch.zeros(10)) for i in range(10)] + [("big", torch.zeros(100))], 100)
    assert [len(ray.get(ref)) for ref in packed.chunks] == [80] * 5 + [400]


def test_dtype_casts_floating_tensors_alone() -> None:
    got = dict(fetch(chunk_state(state(), dtype=torch.bfloat16)))
    assert got["fp32"].dtype == torch.bfloat16
    assert got["odd"].dtype == torch.uint8


def test_waiting_ends_when_the_version_is_published() -> None:
    coordinator = create_coordinator("wait")
    assert ray.get(coordinator.latest.remote()) is None
    packed = chunk_state([("x", torch.ones(2))])
    waiting = [coordinator.wait.remote(v) for v in (0, 1, 2)]
    ray.get(coordinator.publish.remote(1, packed))
    assert ray.get(waiting[:2], timeout=120) == [1, 1]
    assert ray.wait(waiting[2:], timeout=0.2)[0] == []
    ray.get(find_coordinator("wait").publish.remote(2, packed))
    assert ray.get(waiting[2], timeout=120) == 2
    newest = ray.get(coordinator.latest.remote())
    assert newest.version == 2
    assert torch.equal(dict(fetch(newest.weights))["x"], torch.ones(2))


def test_versions_only_grow_and_reports_are_kept() -> None:
    coordinator = create_coordinator("grow")
    packed = chunk_state([("x", torch.ones(2))])
    ray.get(coordinator.publish.remote(3, packed))
    with pytest.raises(ValueError, match="version 3 is not newer than the published 3"):
        ray.get(coordinator.publish.remote(3, packed))
    ray.get([coordinator.serves.remote("a", 3), coordinator.serves.remote("b", 2)])
    assert ray.get(coordinator.engines.remote()).serving == {"a": 3, "b": 2}
    ray.get(coordinator.register.remote("stream", [None], EngineProcess("b", "actor of b", "node", 1, 0.0, 60.0)))
    assert ray.get(coordinator.report_death.remote("b")) == 1
    assert ray.get(coordinator.engines.remote()).serving == {"a": 3}


def test_a_missing_board_is_named() -> None:
    with pytest.raises(ValueError, match="no coordinator named 'nowhere'"):
        find_coordinator("nowhere")
