"""Log-probs of the temperature that samples. vLLM's engine has no other beside it in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from calibadv.rollout.protocols import Sampling
from tests.rollout.engine_suite import MAX_LEN, prompt, reference_logprobs, save_tiny_model


def torch_engine(folder: Path) -> Any:
    from calibadv.rollout.torch_engine import TorchEngine

    return TorchEngine.from_folder(folder, tempered_logprobs=True)


def vllm_engine(folder: Path) -> Any:
    pytest.importorskip("vllm")
    from calibadv.cluster.vllm_engine import VllmEngine
    from calibadv.cluster.vllm_settings import VllmSettings

    settings = VllmSettings(str(folder), "float32", max_model_len=MAX_LEN, kv_cache_gb=0.1, tempered_logprobs=True)
    return VllmEngine(settings)


@pytest.mark.parametrize("made", [torch_engine, pytest.param(vllm_engine, marks=pytest.mark.integration)])
async def test_log_probs_are_of_the_temperature_that_samples_and_greedy_ones_of_1(
    made: Callable[[Path], Any], tmp_path: Path
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path), dtype=torch.float32).eval()
    engine = made(tmp_path)
    try:
        for temperature, told_at in ((0.7, 0.7), (1.0, 1.0), (0.0, 1.0)):
            generation = await engine(prompt(3), Sampling(20, temperature=temperature, seed=3, stop=()))
            expected = reference_logprobs(model, prompt(3), generation.ids, told_at)
            np.testing.assert_allclose(generation.logprobs, expected, atol=1e-4)
    finally:
        engine.close()
