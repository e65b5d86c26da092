"""A learner's own copy of the weights, read from another process: in main memory, as it would be on a GPU."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from calibadv.cluster.chunks import chunk_state
from calibadv.cluster.device_copy import DeviceCopy, place, read, within_reach
from calibadv.cluster.packed import PackedWeights, SharedCopy
from calibadv.cluster.weights import fetch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def named_memory() -> None:
    # CPU tensors are handed on by name, not by a file descriptor that only a child would be given.
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]


def kept(copy: DeviceCopy, *chunks: bytes) -> SharedCopy:
    copy.begin()
    for chunk in chunks:
        copy.add([torch.tensor(list(chunk), dtype=torch.uint8)])
    shared = copy.finish()
    assert shared is not None
    for buffer in copy._buffers:  # main memory goes with its last reader, unless it counts more; a GPU's does not
        for _ in range(10):
            buffer.untyped_storage()._shared_incref()  # type: ignore[no-untyped-call]
    return shared


def taken(shared: SharedCopy) -> list[bytes]:
    return [bytes(read(shared, chunk).tolist()) for chunk in range(len(shared.handles))]


def test_what_is_kept_is_read_and_can_be_read_again() -> None:
    copy = DeviceCopy(CPU)
    shared = kept(copy, b"first", b"2nd")
    assert taken(shared) == taken(shared) == [b"first", b"2nd"]


READER = """
import pickle, sys
from calibadv.cluster.device_copy import read, within_reach
shared = pickle.loads(open(sys.argv[1], "rb").read())
found = within_reach([shared])
sys.stdout.write(bytes(read(found, 0).tolist()).decode())
"""


def read_elsewhere(file: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(file)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return done.stdout


def test_an_unrelated_process_reads_it_and_so_does_its_successor(tmp_path: Path) -> None:
    copy, file = DeviceCopy(CPU), tmp_path / "shared"
    for text in (b"version 1", b"version 2"):
        file.write_bytes(pickle.dumps(kept(copy, text)))
        assert read_elsewhere(file) == text.decode()
    assert read_elsewhere(file) == "version 2"


def test_a_version_that_is_written_over_is_not_read_as_if_it_were_there() -> None:
    copy = DeviceCopy(CPU)
    old = kept(copy, b"aaaa", b"bbbb")
    new = kept(copy, b"cccc", b"dddd")
    assert old.handles == new.handles  # the buffers are the same ones
    assert taken(new) == [b"cccc", b"dddd"]
    with pytest.raises(RuntimeError, match="chunk 1 has been written over by a later version"):
        read(old, 1)


def test_a_version_that_is_being_written_is_not_read() -> None:
    copy = DeviceCopy(CPU)
    shared = kept(copy, b"aaaa")
    copy.begin()
    with pytest.raises(RuntimeError, match="written over"):
        read(shared, 0)


def test_a_write_in_the_middle_of_a_read_is_noticed() -> None:
    copy = DeviceCopy(CPU)
    shared = kept(copy, b"aaaa")
    with pytest.raises(RuntimeError, match="written over"):
        read(shared, 0, synchronise=lambda _: copy.begin())


def test_only_memory_of_this_machine_is_within_reach() -> None:
    shared = kept(DeviceCopy(CPU), b"aaaa")
    assert within_reach([replace(shared, place="host elsewhere"), shared]) is shared
    assert within_reach([replace(shared, place="host elsewhere")]) is None
    if not torch.cuda.is_available():
        assert within_reach([replace(shared, place="gpu 1", device="cuda:0")]) is None
    assert place(CPU) == shared.place


def test_a_copy_that_cannot_be_made_is_said_once_and_left(caplog: pytest.LogCaptureFixture) -> None:
    copy = DeviceCopy(CPU, no_memory)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            copy.begin()
            copy.add([torch.zeros(4, dtype=torch.uint8)])
            assert copy.finish() is None
    assert [record.getMessage() for record in caplog.records] == [
        "weights are not shared on cpu, but through the object store alone: out of memory"
    ]


def test_chunks_of_another_size_end_it(caplog: pytest.LogCaptureFixture) -> None:
    copy = DeviceCopy(CPU)
    kept(copy, b"aaaa")
    copy.begin()
    copy.add([torch.zeros(5, dtype=torch.uint8)])
    assert copy.finish() is None
    assert "chunk 0 has 5 bytes, and had 4 before" in caplog.text


# ---- beside the object store -----------------------------------------------------------------------------------------

WEIGHTS = [
    ("odd", torch.arange(3, dtype=torch.uint8)),
    ("fp32", torch.linspace(-1, 1, 35).reshape(5, 7)),
    ("transposed", torch.linspace(0, 1, 12).reshape(6, 2).T),
    ("scalar", torch.tensor(2.5)),
    ("empty", torch.zeros(0, 4)),
]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """What is in the object store, by its reference."""
    kept: dict[Any, Any] = {}

    def put(value: Any) -> Any:
        kept[reference := f"ref {len(kept)}"] = value.copy()  # as Ray does
        return reference

    monkeypatch.setattr(ray, "put", put)
    monkeypatch.setattr(ray, "get", kept.__getitem__)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    return kept


def same(packed: PackedWeights) -> None:
    got = dict(fetch(packed))
    assert list(got) == [name for name, _ in WEIGHTS]
    for name, tensor in WEIGHTS:
        assert torch.equal(got[name], tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("chunk_bytes", [1, 40, 10**6])
def test_an_engine_in_reach_needs_no_object_store(store: dict[Any, Any], chunk_bytes: int) -> None:
    packed = chunk_state(WEIGHTS, chunk_bytes, torch.bfloat16, DeviceCopy(CPU), store=None)
    assert store == {}
    assert packed.chunks == ()
    assert len(packed.copies[0].handles) == packed.manifest[-1].chunk + 1
    same(packed)


def test_both_ways_hold_the_same_and_one_out_of_reach_takes_the_store(store: dict[Any, Any]) -> None:
    plain, shared = (chunk_state(WEIGHTS, 40, torch.bfloat16, copy) for copy in (None, DeviceCopy(CPU)))
    assert plain.copies == ()
    assert plain.manifest == shared.manifest
    assert [store[ref].tolist() for ref in plain.chunks] == [store[ref].tolist() for ref in shared.chunks]
    same(replace(shared, copies=(replace(shared.copies[0], place="host elsewhere"),)))


def test_an_engine_that_comes_late_takes_its_version_from_the_store_and_says_so_once(
    store: dict[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    copy = DeviceCopy(CPU)
    old = chunk_state(WEIGHTS, 40, torch.bfloat16, copy)
    chunk_state([(name, tensor + 1) for name, tensor in WEIGHTS], 40, torch.bfloat16, copy)
    with caplog.at_level(logging.WARNING):
        same(old)
    assert len(store) == 2 * len(old.chunks)
    (record,) = caplog.records
    assert "weights come through the object store, not from host" in record.getMessage()


def test_a_copy_that_fails_leaves_the_store_whole(store: dict[Any, Any]) -> None:
    packed = chunk_state(WEIGHTS, 40, torch.bfloat16, DeviceCopy(CPU, no_memory))
    assert packed.copies == ()
    assert len(store) == len(packed.chunks)
    same(packed)


def no_memory(*_: Any) -> Any:
    raise torch.cuda.OutOfMemoryError("out of memory")
