"""A policy written weight by weight is the one that `save_pretrained` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from calibadv.rllib.model_folder import write_model_folder


def model_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def assert_same(one: Any, other: Any) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert [name for name in first if first[name].dtype != second[name].dtype] == []
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_opens_as_what_save_pretrained_writes(model_folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).save_pretrained(tmp_path / "whole")
    write_model_folder(
        model.named_parameters(), model, str(model_folder), tmp_path / "parts", dtype, max_file_bytes=50_000
    )
    assert_same(*(AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=dtype) for name in ("parts", "whole")))
    assert model_of(tmp_path / "parts").dtype == dtype  # as its config says, by itself
    ours, theirs = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("parts", "whole"))
    assert ours | {"dtype": ""} == theirs | {"dtype": ""}  # save_pretrained names the dtype of the model that trains
    assert len(AutoTokenizer.from_pretrained(tmp_path / "parts")) == len(AutoTokenizer.from_pretrained(model_folder))
    assert model.config.dtype == torch.float32  # the one that trains stays as it is


def test_no_file_is_larger_than_asked_unless_a_weight_is(model_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    write_model_folder(
        model.named_parameters(), model, str(model_folder), tmp_path, torch.float32, max_file_bytes=50_000
    )
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    weights = dict(model.named_parameters())
    assert list(index["weight_map"]) == list(weights)
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in weights.values())
    held: dict[str, list[int]] = {}
    for name, file in index["weight_map"].items():
        held.setdefault(file, []).append(weights[name].nbytes)
    assert len(held) > 3
    assert all(sum(sizes) <= 50_000 or len(sizes) == 1 for sizes in held.values())
    assert {path.name for path in tmp_path.glob("*.safetensors")} == set(held)


def test_a_model_of_one_file_has_the_usual_name_and_no_index(model_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    write_model_folder(model.named_parameters(), model, str(model_folder), tmp_path, torch.float32)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert_same(model_of(tmp_path), model)


def test_a_head_of_its_own_is_written(model_folder: Path, tmp_path: Path) -> None:
    config = Qwen2Config.from_pretrained(model_folder, tie_word_embeddings=False)
    model = Qwen2ForCausalLM(config)
    write_model_folder(model.named_parameters(), model, str(model_folder), tmp_path, torch.float32)
    assert torch.equal(model_of(tmp_path).lm_head.weight, model.lm_head.weight)
