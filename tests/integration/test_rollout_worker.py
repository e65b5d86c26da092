"""A real vLLM engine in a rollout worker of Ray Data, taking two published policies."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from transformers import AutoModelForCausalLM

from calibadv.cluster.chunks import chunk_state
from calibadv.cluster.coordinator import create_coordinator
from calibadv.cluster.rollout_worker import RollGroupFn, WorkerSettings
from calibadv.cluster.rows import RolloutRow
from calibadv.cluster.stream import PoolSettings, stream_rollouts
from calibadv.cluster.vllm_engine import VllmEngine
from calibadv.cluster.vllm_settings import VllmSettings
from calibadv.rollout.protocols import GenerateFn, Sampling
from tests.cluster.fake_engine import row
from tests.rollout.engine_suite import perturbed, prompt, reference_logprobs, save_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def one_turn() -> RollGroupFn:
    async def roll(row: RolloutRow, generate: GenerateFn, version: int) -> Any:
        return version, await generate(prompt(row.index), Sampling(16, seed=version, stop=()))

    return roll


def test_rows_are_sampled_by_the_policy_of_their_step(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = save_tiny_model(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    policies = {0: base, 1: perturbed(folder)}
    coordinator = create_coordinator("vllm-worker")
    ray.get(coordinator.publish.remote(0, chunk_state(policies[0].state_dict().items())))
    settings = VllmSettings(str(folder), dtype="float32", max_model_len=128, kv_cache_gb=0.1)
    worker = WorkerSettings(partial(VllmEngine, settings), one_turn, "vllm-worker")
    rows = [row(step, i) for step in (0, 1) for i in range(6)]
    left = Counter(given.step for given in rows)
    done = 0
    for finished in stream_rollouts(rows, worker, PoolSettings(engines=1, rows_per_step=6)):
        version, generation = finished.rolled
        assert version == finished.step
        expected = reference_logprobs(policies[finished.step], prompt(finished.index), generation.ids)
        np.testing.assert_allclose(generation.logprobs, expected, atol=1e-4)
        done += 1
        left[finished.step] -= 1
        if left[0] == 0 and finished.step == 0:
            ray.get(coordinator.publish.remote(1, chunk_state(policies[1].state_dict().items(), chunk_bytes=20_000)))
    assert done == len(rows)
