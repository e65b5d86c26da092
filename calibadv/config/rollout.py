"""How rollouts are sampled."""

from __future__ import annotations

from datetime import date as dates
from typing import Literal

from pydantic import Field, field_validator, model_validator

from calibadv.data.errors import shown
from calibadv.section import Processes, Rollouts, Seconds, Section, Tokens
from calibadv.tags import PROMPT_TEMPLATE


class RolloutConfig(Section):
    engine: Literal["vllm", "torch"] = "vllm"
    torch_dtype: Literal["float64", "float32"] = "float64"  # float32: faster, tokens may depend on what is batched
    engines: Processes = 8
    tensor_parallel: int = Field(1, ge=1, le=1024)
    samples: int = Field(5, ge=1, le=10_000)  # rollouts a question, n
    temperature: float = Field(1.0, gt=0, le=100)
    # Of training rollouts; 1 = all tokens. Log-probs stay those of the full distribution at temperature 1, sampled or
    # recomputed, as in trainers that recompute them. The paper's released script: 0.95
    top_p: float = Field(1.0, gt=0, le=1)
    template: str = PROMPT_TEMPLATE
    system: str = ""  # a system message before the prompt; "" = none, or the chat template's own
    date: str = ""  # 2026-11-28: told to a chat template that writes the date; "" = the day the run begins, kept by it
    max_turns: int = Field(4, ge=0, le=1000)
    max_prompt_tokens: Tokens = 2048
    max_turn_tokens: Tokens = 1024
    max_observation_tokens: Tokens = 2048
    max_tokens: int = Field(16384, ge=2, le=10**8)
    require_search: bool = True
    on_void_turn: Literal["stop", "retry"] = "stop"
    infra_retries: int = Field(2, ge=0, le=100)  # rollouts whose search failed are sampled again this often
    max_staleness: int = Field(0, ge=0, le=1)  # 1: the next step's rollouts run while a step is learned
    placement: Literal["separate", "colocated"] = "separate"  # colocated: an engine and a learner take turns on a GPU
    engine_timeout_s: Seconds = 600.0  # an engine that answers nothing for so long is replaced
    # auto: by CUDA IPC where an engine and a learner share a GPU, through the object store elsewhere
    weight_transfer: Literal["auto", "object_store", "cuda_ipc"] = "auto"
    max_concurrent: Rollouts = 256  # sequences an engine batches
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1)
    kv_cache_gb: float = Field(1.0, gt=0, le=10**5)  # CPU engines only

    @field_validator("date")
    @classmethod
    def _a_day(cls, date: str) -> str:
        try:
            return dates.fromisoformat(date).isoformat() if date else ""
        except ValueError:
            raise ValueError(f"rollout.date = {shown(date)}: expected a day as 2026-11-28, or ''") from None

    @model_validator(mode="after")
    def _room(self) -> RolloutConfig:
        if self.max_prompt_tokens >= self.max_tokens:
            raise ValueError(
                f"rollout.max_prompt_tokens = {self.max_prompt_tokens} leaves no room in "
                f"rollout.max_tokens = {self.max_tokens}: lower the first or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _ipc_needs_one_gpu(self) -> RolloutConfig:
        if self.weight_transfer == "cuda_ipc" and self.placement != "colocated":
            raise ValueError(
                f"rollout.weight_transfer = 'cuda_ipc' is between an engine and a learner on one GPU, and "
                f"rollout.placement = {self.placement!r} gives each its own: set it to 'auto'"
            )
        return self
