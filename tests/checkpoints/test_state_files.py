"""A state's files: cut to size, opened by others, and refused when they are not what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from calibadv.checkpoints.state_files import STATE, batched, read_state, write_state

TREE = {
    "weights": {"embed": torch.arange(6.0).reshape(2, 3), "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)},
    "moments": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(2, 3)}},
    "updates_done": 12,
}


def reader(folder: Path) -> Any:
    return lambda name: (folder / name).read_bytes()


@pytest.mark.parametrize("max_file_bytes", [1, 30, 2**30])
def test_a_state_is_the_same_however_its_files_are_cut(tmp_path: Path, max_file_bytes: int) -> None:
    write_state(tmp_path, TREE, max_file_bytes)
    again = read_state(reader(tmp_path))
    assert torch.equal(again["weights"]["embed"], TREE["weights"]["embed"])
    assert torch.equal(again["weights"]["half"], TREE["weights"]["half"])
    assert again["weights"]["half"].dtype == torch.bfloat16
    assert again["moments"][0]["step"].shape == ()
    assert again["updates_done"] == 12
    files = len(list(tmp_path.glob("*.safetensors")))
    assert files == {1: 4, 30: 2, 2**30: 1}[max_file_bytes]  # 24 + 4, then 4 + 24 bytes


def test_anyone_opens_the_tensors_by_name(tmp_path: Path) -> None:
    write_state(tmp_path, TREE)
    there = load_file(tmp_path / "tensors-00000.safetensors")
    assert set(there) == {"weights.embed", "weights.half", "moments.0.step", "moments.0.exp_avg"}


def test_views_of_one_memory_are_written_each_for_itself(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_state(tmp_path, {"first": whole[:3], "last": whole[3:], "turned": whole.reshape(2, 3).T})
    again = read_state(reader(tmp_path))
    assert again["last"].tolist() == [3, 4, 5]
    assert again["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / STATE).write_text("{"),
        lambda folder: (folder / STATE).write_text("[]"),
        lambda folder: (folder / STATE).write_text(json.dumps({"tensors": {}, "tree": {"$tensor": "weights.embed"}})),
        lambda folder: (folder / "tensors-00000.safetensors").write_bytes(b"\x80\x04cos\nsystem\n"),
    ],
)
def test_files_that_are_no_state_are_refused(tmp_path: Path, spoil: Any) -> None:
    write_state(tmp_path, TREE)
    spoil(tmp_path)
    with pytest.raises(ValueError, match="no state"):
        read_state(reader(tmp_path))


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 20), max_size=12), st.integers(1, 25))
def test_batches_keep_the_order_and_the_limit(sizes: dict[str, int], limit: int) -> None:
    batches = batched(sizes, limit)
    assert [name for batch in batches for name in batch] == list(sizes)
    assert all(len(batch) == 1 or sum(sizes[name] for name in batch) <= limit for batch in batches)
