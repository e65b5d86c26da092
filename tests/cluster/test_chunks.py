"""How published weights are cast and cut into chunks, without an object store; a GPU's weights are fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from calibadv.cluster.chunks import StoredChunks, chunk_state
from calibadv.cluster.one_sided import OneSidedChunks


class Casts(TorchDispatchMode):
    """The device on which each cast to another dtype starts and ends, and the dtypes of copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.casts: list[tuple[str, str]] = []
        self.moves: list[tuple[torch.dtype, torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            given, made = (args[0], out) if func._schema.name == "aten::_to_copy" else (args[1], args[0])
            if given.dtype != made.dtype:
                self.casts.append((given.device.type, made.device.type))
            if given.device != made.device:
                self.moves.append((given.dtype, made.dtype))
        return out


def into(put: Callable[[torch.Tensor, torch.device], Any]) -> Callable[[int], StoredChunks]:
    return lambda chunk_bytes: StoredChunks(chunk_bytes, put)


def test_a_gpu_casts_its_weights_before_they_cross_to_main_memory() -> None:
    put: list[torch.device] = []
    with FakeTensorMode(), Casts() as seen:
        named = [(str(i), torch.empty(4, 3, device="cuda")) for i in range(3)]
        packed = chunk_state(named, 50, torch.bfloat16, store=into(lambda _, source: put.append(source)))
    assert seen.casts == [("cuda", "cuda")] * 3
    assert seen.moves == [(torch.uint8, torch.uint8)] * 3  # half the bytes, and nothing left to cast
    assert [device.type for device in put] == ["cuda"] * 2  # 24 + 24 and 24 bytes
    assert [spec.chunk for spec in packed.manifest] == [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_are_written_over_one_another_and_weights_stay_as_they_are(dtype: torch.dtype) -> None:
    weights = [torch.randn(5, 2) for _ in range(4)]
    before = [weight.clone() for weight in weights]
    places, chunks = set(), []

    def put(chunk: torch.Tensor, _: torch.device) -> None:
        places.add(chunk.data_ptr())
        chunks.append(chunk.clone())

    packed = chunk_state([(str(i), weight) for i, weight in enumerate(weights)], 80, dtype, store=into(put))
    assert len(places) == 1
    for spec, weight in zip(packed.manifest, weights, strict=True):
        part = chunks[spec.chunk][spec.offset : spec.offset + spec.nbytes]
        assert torch.equal(part.view(dtype).reshape(spec.shape), weight.to(dtype))
    assert all(map(torch.equal, weights, before))


def test_a_weight_that_is_gone_when_the_next_is_asked_for_has_been_read() -> None:
    def gathered() -> Any:
        for value in (1.0, 2.0):
            weight = torch.full((3,), value)
            yield str(value), weight
            weight.fill_(-1)

    chunks: list[list[float]] = []

    def noted(chunk: torch.Tensor, _: torch.device) -> None:
        chunks.append(chunk.view(torch.float32).tolist())

    chunk_state(gathered(), store=into(noted))
    assert chunks == [[1, 1, 1, 2, 2, 2]]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_chunks_that_stay_are_no_views_of_weights_that_train_on(dtype: torch.dtype | None) -> None:
    """One-sided: cut as for the object store, and what is gathered for a moment is read all the same."""

    class Kept(OneSidedChunks):
        def put(self, chunk: torch.Tensor) -> Any:
            chunks.append(chunk)
            return len(chunks)

    def gathered() -> Any:
        for value in (1.0, 2.0, 3.0):
            weight = torch.full((4, 2), value)
            yield str(value), weight
            weight.fill_(-1)

    chunks: list[torch.Tensor] = []
    packed = chunk_state(gathered(), 64, dtype, store=lambda _: Kept())
    stored = chunk_state(gathered(), 64, dtype, store=into(lambda *_: None))
    assert (packed.one_sided, stored.one_sided) == (True, False)
    assert packed.manifest == stored.manifest
    kind = dtype or torch.float32
    assert [chunk.view(kind).unique().tolist() for chunk in chunks] == ([[1, 2, 3]] if dtype else [[1, 2], [3]])
    assert packed.chunks == tuple(range(1, len(chunks) + 1))
