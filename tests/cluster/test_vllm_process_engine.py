"""vLLM's core in a process of its own: rollouts go on with new weights, and nobody outlives whom it works for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from calibadv.cluster.shared_block import BlockReader, BlockWriter
from calibadv.rollout.protocols import EngineDied, Generation, Sampling
from tests.rollout.engine_suite import MAX_LEN, perturbed, prompt, reference_logprobs, save_tiny_model

ROOT = Path(__file__).parents[2]
STARTED = """
import sys, time
from calibadv.cluster.vllm_process_engine import VllmProcessEngine
from calibadv.cluster.vllm_settings import VllmSettings
if __name__ == "__main__":
    engine = VllmProcessEngine(VllmSettings(sys.argv[1], dtype="float32", max_model_len=64, kv_cache_gb=0.05))
    print("ready", flush=True)
    time.sleep(600)
"""


def test_what_lies_in_a_block_is_read_as_it_was_written() -> None:
    noise = torch.Generator().manual_seed(0)
    given = {
        "a": torch.randn(3, 5, generator=noise),
        "b": torch.randn(7, generator=noise).to(torch.bfloat16),
        "scalar": torch.tensor(4.0),
        "larger than a block": torch.randn(100, generator=noise),
        "a row of it": torch.randn(4, 6, generator=noise).T,
        "count": torch.arange(3),
    }
    writer, reader, read, files = BlockWriter(block_bytes=256), BlockReader(), {}, []
    for path, size, specs in writer.filled(given.items()):
        files += [Path(path)] if path else []
        read |= {name: tensor.clone() for name, tensor in reader.tensors(path, size, specs)}
        writer.forget()
        assert not any(file.exists() for file in files)
    assert list(read) == list(given)
    assert len(files) == 2  # one, and a larger one
    for name, tensor in given.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    pytest.importorskip("vllm")
    from calibadv.cluster.vllm_process_engine import VllmProcessEngine
    from calibadv.cluster.vllm_settings import VllmSettings

    made = VllmProcessEngine(VllmSettings(str(folder), dtype="float32", max_model_len=MAX_LEN, kv_cache_gb=0.1))
    yield made
    made.close()


async def exchanged_meanwhile(engine: Any, weights: Any, version: int) -> tuple[Generation, int]:
    """(a request of 200 tokens, of which some had been heard when new weights were there: how many)."""
    loop, begun, heard = asyncio.get_running_loop(), asyncio.Event(), []

    def hear(ids: Sequence[int]) -> None:
        heard.extend(ids)
        loop.call_soon_threadsafe(begun.set)

    request = asyncio.ensure_future(engine(prompt(0), Sampling(200, seed=3, stop=(), heard=hear)))
    await begun.wait()
    await asyncio.to_thread(engine.exchange_weights, weights.items(), version)
    at_exchange = len(heard)
    return await request, at_exchange


@pytest.mark.integration
async def test_a_request_goes_on_with_weights_that_come_meanwhile(engine: Any, folder: Path) -> None:
    old, new = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), perturbed(folder)
    for version in range(1, 20):  # on a busy machine a request may be over before its weights come
        generation, heard = await exchanged_meanwhile(engine, new.state_dict(), version)
        if heard < len(generation.ids) - 20:
            break
        old, new = new, old
    assert engine.version == version
    by_old, by_new = (reference_logprobs(model, prompt(0), generation.ids) for model in (old, new))
    sampled_by_old = np.isclose(generation.logprobs, by_old, atol=1e-3)
    sampled_by_new = np.isclose(generation.logprobs, by_new, atol=1e-3)
    first_new = int(np.argmin(sampled_by_old))
    assert 0 < first_new < len(generation.ids)
    # What was sampled before keeps its log-probs, what comes after is the new model's, given all that came before.
    assert sampled_by_old[:first_new].all()
    assert sampled_by_new[first_new:].all()
    # A new request is the new model's alone.
    fresh = await engine(prompt(0), Sampling(20, seed=3, stop=()))
    np.testing.assert_allclose(fresh.logprobs, reference_logprobs(new, prompt(0), fresh.ids), atol=1e-3)


@pytest.mark.integration
async def test_incomplete_weights_are_refused_and_end_a_request_that_waits_for_them(engine: Any) -> None:
    request = asyncio.ensure_future(engine(prompt(1), Sampling(200, seed=1, stop=())))
    await asyncio.sleep(0.05)
    with pytest.raises(ValueError, match=r"the weights leave \d+ of the model's parameters as they were on rank 0"):
        await asyncio.to_thread(engine.exchange_weights, [], 8)
    for waiting in (request, engine(prompt(1), Sampling(4))):
        with pytest.raises(EngineDied, match="new weights came half-way: the weights leave"):
            await asyncio.wait_for(waiting, 60)


@pytest.mark.integration
def test_a_core_that_died_while_nothing_ran_is_the_engines_death(folder: Path) -> None:
    pytest.importorskip("vllm")
    from calibadv.cluster.vllm_process_engine import VllmProcessEngine
    from calibadv.cluster.vllm_settings import VllmSettings

    others = set(psutil.Process().children(recursive=True))
    engine = VllmProcessEngine(VllmSettings(str(folder), dtype="float32", max_model_len=64, kv_cache_gb=0.05))
    started = set(psutil.Process().children(recursive=True)) - others
    (core,) = (child for child in started if child.memory_info().rss > 200 * 2**20)
    core.suspend()
    with ThreadPoolExecutor() as pool:
        asked_before = pool.submit(engine.load_weights, [], 1)
        time.sleep(1)  # it has been sent, to a core that never answers
        core.kill()
        with pytest.raises(EngineDied, match="the vLLM engine is gone"):
            asked_before.result(60)
    with pytest.raises(EngineDied, match="the vLLM engine is gone"):
        engine.load_weights([], 1)
    engine.close()


@pytest.mark.integration
def test_the_core_ends_with_the_process_that_it_works_for(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    script = tmp_path / "started.py"
    script.write_text(STARTED, encoding="utf-8")
    command = [sys.executable, str(script), str(save_tiny_model(tmp_path / "tiny"))]
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=given) as parent:
        assert parent.stdout is not None
        assert any(line == "ready\n" for line in parent.stdout)
        started = psutil.Process(parent.pid).children(recursive=True)
        assert any(child.memory_info().rss > 200 * 2**20 for child in started), "the core has the model"
        parent.kill()
    _, left = psutil.wait_procs(started, timeout=60)
    assert left == []
