"""A prompt that the token budget of a step cuts in pieces, on a vLLM engine without a GPU."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from calibadv.rollout.protocols import Sampling
from tests.rollout.engine_suite import MAX_LEN, prompt, save_tiny_model


@pytest.mark.integration
async def test_prompts_that_are_cut_are_answered_with_the_tokens_of_whole_ones(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from calibadv.cluster.vllm_engine import VllmEngine
    from calibadv.cluster.vllm_settings import VllmSettings

    folder, drawn = str(save_tiny_model(tmp_path)), []
    for budget in (64, 2048):  # six prompts of 200 tokens: in pieces beside rows that sample, and all in one step
        engine = VllmEngine(
            VllmSettings(
                folder,
                dtype="float32",
                max_model_len=MAX_LEN,
                max_num_seqs=8,
                kv_cache_gb=0.1,
                arguments={"max_num_batched_tokens": budget},
            )
        )
        requests = (engine(prompt(seed, 200), Sampling(20, seed=seed, stop=())) for seed in range(6))
        drawn.append([generation.ids.tolist() for generation in await asyncio.gather(*requests)])
        engine.close()
    assert drawn[0] == drawn[1]
