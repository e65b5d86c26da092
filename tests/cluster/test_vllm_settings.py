"""What a vLLM engine is told, on a CPU and on a GPU; no vLLM is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from calibadv.cluster.vllm_engine import VllmEngine
from calibadv.cluster.vllm_settings import VllmSettings, check_arguments, engine_arguments
from calibadv.config import load_config
from calibadv.memory.items import batched_tokens


def arguments(*, cuda: bool, **settings: Any) -> dict[str, Any]:
    return engine_arguments(VllmSettings("m", **settings), Path("m"), cuda)


def test_a_gpu_runs_as_many_tokens_at_once_as_the_memory_plan_counts() -> None:
    assert arguments(cuda=True)["max_num_batched_tokens"] == batched_tokens(256) == 8192
    assert arguments(cuda=True, max_num_seqs=10_000)["max_num_batched_tokens"] == batched_tokens(10_000) == 10_000
    assert arguments(cuda=False)["max_num_batched_tokens"] == 4096


def test_any_argument_of_vllms_goes_before_our_own_but_on_a_cpu_nothing_is_compiled() -> None:
    given = load_config(
        None,
        {
            "rollout.vllm.max_num_batched_tokens": 16_384,
            "rollout.vllm.enforce_eager": False,
            "rollout.vllm.hf_overrides": {"head_dtype": "float32"},
        },
    ).rollout.vllm
    for cuda in (True, False):
        told = arguments(cuda=cuda, arguments=given)
        assert told["max_num_batched_tokens"] == 16_384
        assert told["hf_overrides"] == {"head_dtype": "float32"}
        assert told["enforce_eager"] is not cuda


def test_an_argument_that_vllm_does_not_know_is_named_with_the_nearest_one() -> None:
    check_arguments(["enforce_eager"], {"enforce_eager", "seed"})
    with pytest.raises(ValueError, match=r"rollout.vllm.enforce_eagr is no argument .* \(did you mean 'enforce_eager'"):
        check_arguments(["seed", "enforce_eagr"], {"enforce_eager", "seed"})


def test_all_that_we_tell_is_known_to_the_installed_vllm() -> None:
    source = Path(pytest.importorskip("vllm").__file__).parent / "engine" / "arg_utils.py"
    fields = source.read_text(encoding="utf-8").partition("class EngineArgs:")[2]
    for cuda in (True, False):
        for name in arguments(cuda=cuda):
            assert f"\n    {name}: " in fields, name


def test_a_rank_whose_part_of_the_weights_did_not_come_is_named() -> None:
    class Ranks:
        """Two tensor-parallel ranks; the second does not know `b`."""

        def reset_prefix_cache(self) -> bool:
            return True

        def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[list[str]]:
            if method == "parameter_names":
                return [["a", "b"], ["a", "b"]]
            assert method == "receive_block"  # in shared memory, not pickled for each rank
            given = [spec[0] for spec in args[2]]
            return [given, [name for name in given if name != "b"]]

    engine = VllmEngine.__new__(VllmEngine)
    engine._waiting, engine._settings = {}, VllmSettings("x", tensor_parallel_size=2)
    with pytest.raises(ValueError, match=r"leave 1 .* on rank 1 of the engine: \['b'\]"):
        engine._load(Ranks(), [("a", torch.ones(1)), ("b", torch.ones(1))])
    assert engine._half_loaded
