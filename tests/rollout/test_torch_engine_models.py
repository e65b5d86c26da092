"""The torch engine over other kinds of models: rows in a batch, alone and in plain transformers, or a refusal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Cohere2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from calibadv.rollout.joined_cache import check_folder
from calibadv.rollout.protocols import Generation, Sampling
from calibadv.rollout.torch_engine import TorchEngine
from tests.rollout.engine_suite import prompt, reference_logprobs, save_tiny_model

WINDOW = 16  # shorter than every prompt
TINY = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 256,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
SLIDING_AND_FULL = {"sliding_window": WINDOW, "layer_types": LAYERS}
SERVED: dict[str, PreTrainedConfig] = {
    "a window in every layer": MistralConfig(**TINY, sliding_window=WINDOW),
    "a window in some layers": Qwen2Config(**TINY, **SLIDING_AND_FULL, use_sliding_window=True),
    "a window and a cap": Gemma3TextConfig(**TINY, **SLIDING_AND_FULL, head_dim=8, final_logit_softcapping=9.0),
    "a window and layers without positions": Cohere2Config(**TINY, **SLIDING_AND_FULL),
    "experts": Qwen3MoeConfig(**TINY, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2),
    "learned positions": GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "no stated length": BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
}


def saved(config: PreTrainedConfig, folder: Path) -> Any:
    save_tiny_model(folder)  # its tokenizer stays
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return model.eval()


async def together(engine: TorchEngine, lengths: list[int]) -> list[Generation]:
    """Rows of several lengths; each joins while those before it run."""
    tasks = []
    for seed, length in enumerate(lengths):
        tasks.append(asyncio.ensure_future(engine(prompt(seed, length), Sampling(24, 1.0, seed, ()))))
        await asyncio.sleep(0.02)
    return list(await asyncio.gather(*tasks))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SERVED)
def test_rows_of_a_batch_are_those_of_a_row_alone_and_of_transformers(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, lengths = saved(SERVED[name], tmp_path), [40, 18, 60]
    engine = TorchEngine.from_folder(tmp_path, compute_dtype=dtype)
    try:
        batched = asyncio.run(together(engine, lengths))
        alone = [asyncio.run(together(engine, [length]))[0] for length in lengths[:1]]
    finally:
        engine.close()
    assert batched[0].ids.tolist() == alone[0].ids.tolist()
    for seed, (length, got) in enumerate(zip(lengths, batched, strict=True)):
        expected = reference_logprobs(model, prompt(seed, length), got.ids)
        np.testing.assert_allclose(got.logprobs, expected, atol=2e-4)


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2),
        Qwen3NextConfig(**TINY, layer_types=["linear_attention", "full_attention", "linear_attention"]),
    ],
)
def test_layers_that_keep_a_state_are_refused_before_anything_is_loaded(
    config: PreTrainedConfig, tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"type '{config.model_type}'.*: set rollout.engine to 'vllm'"):
        check_folder(tmp_path)


def test_a_model_whose_rows_change_in_a_batch_is_refused_when_the_engine_starts(tmp_path: Path) -> None:
    model: Any = saved(LlamaConfig(**TINY), tmp_path)
    own = model.forward

    def forward(**given: Any) -> Any:
        return own(**{**given, "attention_mask": None, "position_ids": None})  # padding is read as text

    model.forward = forward
    with pytest.raises(ValueError, match="cannot serve LlamaForCausalLM: in a batch its log-probs are up to"):
        TorchEngine(model, AutoTokenizer.from_pretrained(tmp_path))
