"""How a vLLM engine is started: its settings, the environment they need, and the check of the model's folder.

vLLM reads its environment when it is imported and needs half a minute for that, so that both the variables and the
check come before the import.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from calibadv.memory.items import batched_tokens
from calibadv.nearest import did_you_mean

LONGEST_TEMP = 60  # characters; a socket's path has 107 bytes, and vLLM adds 37
WORKER_EXTENSION = "calibadv.cluster.vllm_worker.WeightReceiver"


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """Settings of one engine; the same class serves a laptop's CPU and a GPU."""

    model: str  # folder in Hugging Face format, tokenizer included
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    max_model_len: int = 16_384  # prompt and sampled tokens together; the paper's limit of a trajectory
    max_num_seqs: int = 256  # requests in one step
    gpu_memory_utilization: float = 0.9  # GPU only
    kv_cache_gb: float = 1.0  # CPU only
    tensor_parallel_size: int = 1
    threads: int = 1  # CPU only
    sleep_mode: bool = False  # GPU only: its memory can be given back and taken again, as colocated engines must
    seed: int = 0
    tempered_logprobs: bool = False  # of the temperature that samples, which takes requests of top_p 1; False: of 1
    arguments: Mapping[str, Any] = field(default_factory=dict)  # more of vLLM's `EngineArgs`; they come last

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}")
        for name in ("max_model_len", "max_num_seqs", "tensor_parallel_size", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def check_model_folder(model: str) -> Path:
    """The model's folder, if vLLM has a chance to open it. Raises ValueError otherwise."""
    folder = Path(model)
    if not folder.is_dir():
        raise ValueError(
            f"model {model!r} is not a folder: give a folder in Hugging Face format "
            "(`hf download ORG/NAME --local-dir FOLDER` makes one)"
        )
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ValueError(f"model folder {model!r} has no config.json: save the model with `save_pretrained`")
    architectures = json.loads(config_file.read_text(encoding="utf-8")).get("architectures") or []
    if not any(str(name).endswith(("ForCausalLM", "ForConditionalGeneration")) for name in architectures):
        raise ValueError(
            f"model folder {model!r} says architectures={architectures}, expected a decoder that generates text "
            "(a name ending in ForCausalLM, e.g. Qwen2ForCausalLM)"
        )
    for what, patterns in (("weights", ("*.safetensors", "*.bin")), ("tokenizer", ("tokenizer*", "vocab*"))):
        if not any(found for pattern in patterns for found in folder.glob(pattern)):
            raise ValueError(f"model folder {model!r} has no {what}: none of {', '.join(patterns)} is there")
    return folder


def out_of_memory(error: Exception) -> bool:
    """Whether a GPU had no room: torch's and vLLM's own words, and those that come from another process."""
    return "out of memory" in str(error)


def no_room_to_wake(gpus: Iterable[tuple[int, int]], share: float) -> str:
    """What an engine that takes the `share` of its GPUs needs. `gpus`: bytes free and all, of each rank's, asleep."""
    free, total = min(gpus, key=lambda gpu: gpu[0] / gpu[1])
    return (
        f"the engine has no room on its GPU to wake: {free / total:.0%} of it were free, and it takes up to "
        f"rollout.gpu_memory_utilization = {share:g}; set that to {int(100 * free / total) / 100:g} or less"
    )


def prepare_environment(settings: VllmSettings, cuda: bool) -> None:
    """Set what vLLM reads at import, leaving alone what the user has set."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process: new weights are passed, not copied
    wanted = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if not cuda:
        wanted |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several engines on one machine would bind to the same cores
            "OMP_NUM_THREADS": str(settings.threads),
            "TORCHDYNAMO_DISABLE": "1",  # compiling takes minutes and a small model gains nothing
        }
    if len(tempfile.gettempdir()) > LONGEST_TEMP:
        wanted["VLLM_RPC_BASE_PATH"] = "/tmp"  # sockets between the ranks of an engine
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def engine_arguments(settings: VllmSettings, folder: Path, cuda: bool) -> dict[str, Any]:
    """Keyword arguments of vLLM's `EngineArgs`."""
    fixed: dict[str, Any] = {
        "model": str(folder),
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "distributed_executor_backend": "uni" if settings.tensor_parallel_size == 1 else "mp",
        "enable_prefix_caching": True,
        "seed": settings.seed,
        "logprobs_mode": "processed_logprobs" if settings.tempered_logprobs else "raw_logprobs",
        "worker_extension_cls": WORKER_EXTENSION,
        "disable_log_stats": True,
        "trust_remote_code": False,
    }
    if cuda:
        here: dict[str, Any] = {
            "max_num_batched_tokens": batched_tokens(settings.max_num_seqs),
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enable_sleep_mode": settings.sleep_mode,
        }
        return fixed | here | dict(settings.arguments)
    here = {
        "max_num_batched_tokens": max(4096, settings.max_num_seqs),
        "block_size": 32,  # prefixes are shared in whole blocks, and vLLM's 128 is longer than most
        "kv_cache_memory_bytes": int(settings.kv_cache_gb * 2**30),
    }
    return fixed | here | dict(settings.arguments) | {"enforce_eager": True}


def check_arguments(arguments: Iterable[str], known: Collection[str]) -> None:
    """ValueError, with the nearest right one, for an argument that vLLM's `EngineArgs` does not know."""
    for name in arguments:
        if name not in known:
            raise ValueError(f"rollout.vllm.{name} is no argument of this vLLM's engine{did_you_mean(name, known)}")


def cuda_available() -> bool:
    """Whether vLLM will run on a GPU."""
    return torch.cuda.is_available()
