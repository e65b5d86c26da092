"""A state's files: cut to size, opened by others, refused when they are not what was written; any state fits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from calibadv.checkpoints.state_files import STATE, batched, decode, encode, read_state, write_state

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


# ---- a state as JSON values and tensors

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["$tensor", "a.b", "a", "b", "0"]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.lists(st.integers(0, 255), max_size=3).map(lambda values: torch.tensor(values, dtype=torch.uint8))
    | st.floats(width=32).map(torch.tensor)
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(st.integers(-3, 3) | st.tuples(st.integers(0, 2)), inner, max_size=3)
    ),
    max_leaves=12,
)


def equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return (
            one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


@given(trees)
@settings(deadline=None, max_examples=150)
def test_any_state_survives_json_and_back(tree: Any) -> None:
    plain, tensors = encode(tree)
    text = json.dumps(plain, allow_nan=False)  # strict JSON, which other languages read
    assert equal(decode(json.loads(text), tensors), tree)


def test_an_optimizers_state_by_hand() -> None:
    moment = torch.tensor([1.0, 2.0])
    state = {
        "state": {0: {"exp_avg": moment}},
        "param_groups": [{"betas": (0.9, 0.999), "foreach": None, "params": [0]}],
    }
    plain, tensors = encode(state)
    assert plain == {
        "state": {"$items": [[0, {"exp_avg": {"$tensor": "state.0.exp_avg"}}]]},
        "param_groups": [{"betas": {"$tuple": [0.9, 0.999]}, "foreach": None, "params": [0]}],
    }
    assert tensors == {"state.0.exp_avg": moment}


def test_paths_that_read_alike_are_two_tensors() -> None:
    plain, tensors = encode({"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}})
    assert set(tensors) == {"a.b", "a.b#2"}
    assert decode(plain, tensors)["a"]["b"] == 2


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", lambda: None])
def test_what_a_file_cannot_hold_is_refused_with_its_path(value: Any) -> None:
    with pytest.raises(ValueError, match=rf"optimizer\.1 is a {type(value).__name__}: expected tensors"):
        encode({"optimizer": [0, value]})


@pytest.mark.parametrize(
    "plain", [{"$tensor": "gone"}, {"$tensor": 3}, {"$tuple": 1}, {"$items": [[1]]}, {"$number": "1"}, {"$what": 1}]
)
def test_json_that_was_never_encoded_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError, match="is no state"):
        decode({"a": [plain]}, {})
