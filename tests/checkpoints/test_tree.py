"""State taken apart into JSON and tensors comes back as it was."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibadv.checkpoints.tree import decode, encode

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
