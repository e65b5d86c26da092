"""How rollouts are sampled."""

from __future__ import annotations

from datetime import date as dates
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from calibadv.refusals import short_repr
from calibadv.rollout.tools import ToolConfig
from calibadv.section import Decides, Dialogue, Means, Processes, Rollouts, Seconds, Section, Tokens
from calibadv.tags import PROMPT_TEMPLATE

# Arguments of vLLM's engine that have a setting of their own, and those that cannot be others.
_SET_HERE = {
    "model": "model.path",
    "dtype": "model.dtype",
    "seed": "run.seed",
    "max_model_len": "rollout.max_tokens",
    "max_num_seqs": "rollout.max_concurrent",
    "tensor_parallel_size": "rollout.tensor_parallel",
    "gpu_memory_utilization": "rollout.gpu_memory_utilization",
    "kv_cache_memory_bytes": "rollout.kv_cache_gb",
    "enable_sleep_mode": "rollout.placement",
}
_FIXED = (
    ("trust_remote_code", "a model's own code is never run"),
    ("logprobs_mode", "the learner needs log-probs of the whole distribution"),
    ("worker_extension_cls", "new weights come through it"),
    ("quantization", "weights of a new version could not be loaded into its layers"),
    ("distributed_executor_backend", "it follows from rollout.tensor_parallel"),
)
# Arguments of a chat template's rendering that are ours.
_OURS = (
    *("tools", "documents", "messages", "conversation", "chat_template", "tokenize"),
    *("add_generation_prompt", "continue_final_message", "return_dict", "return_tensors"),
)
VLLM_MEANS = ("vllm.enforce_eager", "vllm.max_num_batched_tokens")  # of `RolloutConfig.vllm`: as `Means`


class RolloutConfig(Section):
    """How the policy answers: engines, prompt, limits. Token limits are those of the paper's released script."""

    decides: ClassVar[Decides] = Decides.RESULT

    engine: Literal["vllm", "torch"] = "vllm"
    """What samples: vLLM, or transformers in plain torch."""
    engine_process: Means[bool] = False
    """Whether vLLM's core has a process of its own beside the engine's: scheduling and the agents then do not wait for
    one another (docs/gpu.md)."""
    torch_dtype: Literal["float64", "float32"] = "float64"
    """Of engine "torch". float32 is faster; its tokens may depend on what is batched together."""
    engines: Means[Processes] = 8
    """Engine processes."""
    tensor_parallel: Means[int] = Field(1, ge=1, le=1024)
    """GPUs that one engine spreads over."""
    samples: int = Field(5, ge=1, le=10_000)
    """Rollouts a question, n; 5 in the paper's released script."""
    temperature: float = Field(1.0, gt=0, le=100)
    """Of training rollouts, and of the log-probs that train; evaluations are greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Of training rollouts: only the fewest likeliest tokens of so much probability; 1 = all. Log-probs stay those of
    the full distribution, sampled or recomputed. 0.95 in the paper's released script."""
    dialogue: Dialogue[Literal["tags", "hermes", "template"]] = "tags"
    """How the policy searches. tags: <search>, the paper's; hermes: <tool_call>, as Qwen2.5, Qwen3 and Hermes models
    call tools; template: as the model's own chat template writes calls and results (docs/extend.md)."""
    template: Dialogue[str] = PROMPT_TEMPLATE
    """The prompt, with {question}; unless changed Search-R1's, which is the paper's, and the same without its tags
    where calls are not written in them."""
    template_arguments: Dialogue[dict[str, Any]] = Field(default_factory=dict)
    """What the chat template is given beside the messages, e.g. --rollout.template_arguments.enable_thinking false."""
    tools: Dialogue[tuple[ToolConfig, ...]] = ()
    """Tools beside the search, each a [[rollout.tools]] (docs/extend.md)."""
    system: Dialogue[str] = ""
    """A system message before the prompt; "" = none, or the chat template's own."""
    date: Dialogue[str] = ""
    """A day as 2026-11-28, told to a chat template that writes the date; "" = the day the run begins, kept by it."""
    max_turns: Dialogue[int] = Field(4, ge=0, le=1000)
    """Searches a rollout, and calls of all tools; the turn after the last one can only answer."""
    max_prompt_tokens: Dialogue[Tokens] = 2048
    """Tokens of a prompt."""
    max_turn_tokens: Dialogue[Tokens] = 1024
    """Tokens that the policy samples in one turn."""
    max_observation_tokens: Dialogue[Tokens] = 2048
    """Tokens of what a turn's searches and other calls bring; what is more is cut."""
    max_tokens: Dialogue[int] = Field(16384, ge=2, le=10**8)
    """Tokens of a whole rollout; one whose next turn would not fit ends, marked truncated."""
    require_search: Dialogue[bool] = True
    """Whether a rollout is well-formed only if it has searched."""
    on_void_turn: Dialogue[Literal["stop", "retry"]] = "stop"
    """After a turn without search or answer: the rollout ends, or is corrected and goes on, as in Search-R1."""
    infra_retries: Means[int] = Field(2, ge=0, le=100)
    """How often a rollout whose search failed is sampled again, before its question is dropped and counted."""
    max_staleness: int = Field(0, ge=0, le=1)
    """1: the next step's rollouts run while a step is learned; 0: exactly on-policy."""
    on_new_weights: Literal["drain", "keep"] = "drain"
    """What becomes of rollouts that run when an engine takes new weights: it lets them finish first, or they go on with
    the new ones (needs max_staleness 1 and engine_process)."""
    placement: Means[Literal["separate", "colocated"]] = "separate"
    """Colocated: an engine and a learner take turns on a GPU."""
    engine_timeout_s: Means[Seconds] = 600.0
    """Seconds after which an engine that answers nothing is replaced."""
    weight_transfer: Means[Literal["auto", "object_store", "cuda_ipc", "nixl"]] = "auto"
    """How engines get weights. auto: by CUDA IPC where an engine and a learner share a GPU, else through the object
    store. nixl: engines read them from the learner's own memory (docs/scaling.md)."""
    max_concurrent: Means[Rollouts] = 256
    """Sequences that an engine batches."""
    gpu_memory_utilization: Means[float] = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory that a vLLM engine takes."""
    kv_cache_gb: Means[float] = Field(1.0, gt=0, le=10**5)
    """GB of the KV cache of a vLLM engine on CPU."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """More arguments of vLLM's own engine, e.g. --rollout.vllm.enforce_eager true (docs/gpu.md)."""

    @property
    def tempered(self) -> bool:
        """Whether training rollouts, and so the log-probs that train, are of another temperature than 1."""
        return self.temperature != 1

    @property
    def colocated(self) -> bool:
        """Whether engines and learners share GPUs and take turns on them."""
        return self.placement == "colocated"

    @property
    def reads_learner_memory(self) -> bool:
        """Whether engines read new weights where a learner on another GPU has them."""
        return self.weight_transfer == "nixl"

    @property
    def reads_learner_gpu(self) -> bool:
        """Whether an engine reads new weights from the GPU that it shares with a learner. vLLM's core in a process of
        its own is given them through main memory, wherever they come from."""
        asked = self.weight_transfer
        return not self.engine_process and (asked == "cuda_ipc" or (asked == "auto" and self.colocated))

    @field_validator("vllm")
    @classmethod
    def _vllms_own(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name in _SET_HERE:
                raise ValueError(f"rollout.vllm.{name} is what {_SET_HERE[name]} sets: set that instead")
            if reason := dict(_FIXED).get(name):
                raise ValueError(f"rollout.vllm.{name} cannot be set: {reason}")
        return arguments

    @field_validator("date")
    @classmethod
    def _a_day(cls, date: str) -> str:
        try:
            return dates.fromisoformat(date).isoformat() if date else ""
        except ValueError:
            raise ValueError(f"rollout.date = {short_repr(date)}: expected a day as 2026-11-28, or ''") from None

    @field_validator("template_arguments")
    @classmethod
    def _the_templates_own(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if ours := next((name for name in arguments if name in _OURS), None):
            raise ValueError(f"rollout.template_arguments.{ours} cannot be set: each rendering has its own")
        return arguments

    @model_validator(mode="after")
    def _tools_can_be_called(self) -> RolloutConfig:
        names = [tool.called for tool in self.tools]
        if self.tools and self.dialogue == "tags":
            raise ValueError(
                f"rollout.tools = {', '.join(names)}, and rollout.dialogue = 'tags' has a tag for the search "
                "alone: set it to 'hermes' or 'template'"
            )
        return self

    @model_validator(mode="after")
    def _log_probs_can_be_told(self) -> RolloutConfig:
        if self.tempered and self.top_p < 1:
            raise ValueError(
                f"rollout.temperature = {self.temperature} with rollout.top_p = {self.top_p}: vLLM tells no log-probs "
                "of the whole distribution at that temperature; set one of them to 1"
            )
        return self

    @model_validator(mode="after")
    def _room(self) -> RolloutConfig:
        if self.max_prompt_tokens >= self.max_tokens:
            raise ValueError(
                f"rollout.max_prompt_tokens = {self.max_prompt_tokens} leaves no room in "
                f"rollout.max_tokens = {self.max_tokens}: lower the first or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _keeping_needs_a_process(self) -> RolloutConfig:
        if self.engine_process and self.engine != "vllm":
            raise ValueError(
                f"rollout.engine_process = true is vLLM's, and rollout.engine = {self.engine!r}: set it to false"
            )
        if self.on_new_weights == "keep" and not (self.engine_process and self.max_staleness):
            raise ValueError(
                f"rollout.on_new_weights = 'keep' with rollout.engine_process = {self.engine_process} and "
                f"rollout.max_staleness = {self.max_staleness}: set them to true and 1, or it to 'drain'"
            )
        return self

    @model_validator(mode="after")
    def _transfer_fits_the_placement(self) -> RolloutConfig:
        if self.weight_transfer == "cuda_ipc" and not self.colocated:
            raise ValueError(
                f"rollout.weight_transfer = 'cuda_ipc' is between an engine and a learner on one GPU, and "
                f"rollout.placement = {self.placement!r} gives each its own: set it to 'auto'"
            )
        if self.weight_transfer == "cuda_ipc" and self.engine_process:
            raise ValueError(
                "rollout.weight_transfer = 'cuda_ipc' with rollout.engine_process = true, whose core is given weights "
                "through main memory: set the one to 'auto' or the other to false"
            )
        if self.reads_learner_memory and self.colocated:
            raise ValueError(
                "rollout.weight_transfer = 'nixl' is from one GPU to others, and with rollout.placement = 'colocated' "
                "an engine has the learner's: set it to 'auto'"
            )
        return self
