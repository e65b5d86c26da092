"""Packed rows train a model as padded ones do: the same log-probs and gradients, whatever rows have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from calibadv.batching import Row
from calibadv.micro_batches import micro_batches
from calibadv.rllib.objective import to_tensors
from calibadv.rllib.packed_attention import can_pack, in_autocast, packs_alike
from calibadv.rllib.policy import load_causal_lm, packs_rows, policy_pass
from tests.rllib.conftest import settings
from tests.rllib.test_learner import make_learner
from tests.test_micro_batches import row

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
PACK = {
    "Qwen2": Qwen2Config(**TINY),
    "Qwen3": Qwen3Config(**TINY, head_dim=8),
    "Llama": LlamaConfig(**TINY),
    "Mistral without a window": MistralConfig(**TINY, sliding_window=None),
    "absolute positions": GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, n_positions=128),
}
PAD = {
    "a window in some layers": Qwen2Config(**TINY, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "a window": MistralConfig(**TINY, sliding_window=8),
    "capped scores": Gemma2Config(**TINY, head_dim=8),
    "sinks": GptOssConfig(
        **TINY, head_dim=8, num_local_experts=2, num_experts_per_tok=1, layer_types=["full_attention"] * 2
    ),
}


def saved(config: PreTrainedConfig, folder: Path) -> str:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def rows() -> list[Row]:
    """Two groups' rollouts, of which three begin alike up to the prompt's end and two of those a turn further."""
    random = np.random.default_rng(3)
    prompt, turn, *rest = (random.integers(90, size=n).tolist() for n in (24, 20, 9, 17, 30, 41, 5))
    return [
        row([*prompt, *turn, *rest[0]], 24),
        row([*prompt, *turn, *rest[1]], 24),
        row([*prompt, *rest[2]], 24),
        row(rest[3], 4),
        row(rest[4], 2),
    ]


@pytest.mark.parametrize("name", PACK)
def test_packed_rows_have_the_log_probs_and_gradients_of_padded_ones(name: str, tmp_path: Path) -> None:
    model = load_causal_lm(saved(PACK[name], tmp_path))
    assert packs_rows(model)
    found, gradients, computed = [], [], []
    for packed in (True, False):
        model.zero_grad()
        logprobs = [torch.empty(0)] * len(rows())
        for micro in micro_batches(rows(), 100, packed=packed):
            computed.append(micro.ids_BT.size)
            stats = policy_pass(model, to_tensors(micro, CPU))[1]
            (stats.logprobs_N * torch.from_numpy(micro.tokens["advantages_N"])).sum().backward()
            parts = stats.logprobs_N.detach().split(np.bincount(micro.row_N).tolist())
            for index, part in zip(micro.rows, parts, strict=True):
                logprobs[index] = part
        found.append(torch.cat(logprobs))
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    for ours, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, padded, atol=1e-5 * float(padded.abs().max().clamp(min=1)), rtol=1e-5)


@pytest.mark.parametrize("name", PAD)
def test_other_attention_pads(name: str, tmp_path: Path) -> None:
    model = load_causal_lm(saved(PAD[name], tmp_path))
    assert not packs_rows(model)
    assert not can_pack(model)


def test_a_model_is_not_packed_where_it_is_not_asked_for_or_reads_its_neighbours(
    tmp_path: Path,
) -> None:
    path = saved(PACK["Qwen2"], tmp_path)
    assert not packs_rows(load_causal_lm(path, pack=False))
    model = load_causal_lm(path)
    assert packs_alike(model, lambda batch: policy_pass(model, batch)[1].logprobs_N)
    forgetful = lambda batch: policy_pass(model, {k: v for k, v in batch.items() if k != "positions_T"})[1].logprobs_N  # noqa: E731
    assert not packs_alike(model, forgetful)


def test_rows_are_padded_where_a_packed_one_has_no_number(tmp_path: Path) -> None:
    model = load_causal_lm(saved(PACK["Qwen2"], tmp_path))

    def last_is_nan(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logprobs_N = policy_pass(model, batch)[1].logprobs_N
        return logprobs_N.where((batch["row_N"] == 0) | ("positions_T" not in batch), torch.nan)

    assert not packs_alike(model, last_is_nan)


def test_a_device_is_tried_forwards_and_backwards(model_folder: Path) -> None:
    policy = make_learner(model_folder, settings()).policy
    policy.check_packing(1e-3)
    assert policy.packs_rows
    assert all(parameter.grad is None for parameter in policy.parameters())

    def no_kernel(*_: object) -> None:
        raise RuntimeError("no kernel for the backward pass")

    policy.language_model.base_model.layers[-1].register_full_backward_hook(no_kernel)
    policy.check_packing(1e-3)
    assert not policy.packs_rows


def test_autocast_has_its_dtype_in_attention_too() -> None:
    query, value = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16)
    assert [tensor.dtype for tensor in in_autocast(query, value)] == [torch.float32, torch.bfloat16]
    with torch.autocast("cpu", torch.bfloat16):
        assert [tensor.dtype for tensor in in_autocast(query, value)] == [torch.bfloat16, torch.bfloat16]


def test_a_saved_model_does_not_name_our_attention(tmp_path: Path) -> None:
    load_causal_lm(saved(PACK["Qwen2"], tmp_path)).save_pretrained(tmp_path / "out")
    assert "calibadv" not in (tmp_path / "out" / "config.json").read_text("utf-8")
