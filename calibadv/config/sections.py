"""The whole configuration: one pydantic tree, read from TOML, overridden by `--section.key value`.

A default is the paper's value (CalibAdv appendix G, or its released script) unless a comment says otherwise. Unknown
keys are refused with the nearest right one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from datetime import date as dates
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from calibadv.collapse import Limits
from calibadv.config.names import suggestion
from calibadv.config.secrets import secret_keys
from calibadv.data.errors import shown
from calibadv.methods import make_method
from calibadv.tags import PROMPT_TEMPLATE
from calibadv.types import TokenUnit

LONGEST_NAME = 200  # bytes of a run's: file systems allow 255, and drafts of it have longer ones
POCKET = "pocket"  # the embedded world and policy, as a data set and as a model


# Bounds above which a number is a slip (a unit, an exponent, a digit too many), however large the machine.
Steps = Annotated[int, Field(ge=1, le=10**7)]
Rollouts = Annotated[int, Field(ge=1, le=10**6)]  # or questions, passages, sequences
Tokens = Annotated[int, Field(ge=1, le=10**8)]
Processes = Annotated[int, Field(ge=1, le=10**4)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Coefficient = Annotated[float, Field(ge=0, le=100)]


class Section(BaseModel):
    """A frozen part of the configuration that knows no extra keys, and takes neither `inf` nor `true` for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise PydanticCustomError("number_wanted", "Input should be a number")
        return value


class Run(Section):
    name: str = ""  # "" = <method>-seed<seed>
    folder: Path = Path("runs")
    cache: Path = Path(".cache")  # pocket world, embeddings; on every node of a cluster
    seed: int = Field(0, ge=0, lt=2**32)  # what numpy takes
    steps: Steps = 205  # one epoch of HotpotQA + 2Wiki
    overwrite: bool = False

    @field_validator("name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if name in (".", "..") or "/" in name or not name.isprintable():
            raise ValueError(f"run.name = {shown(name)}: expected the name of one folder, without '/'")
        if len(name.encode()) > LONGEST_NAME:
            raise ValueError(
                f"run.name = {shown(name)}: {len(name.encode())} bytes are too long for a folder's name, "
                f"expected at most {LONGEST_NAME}"
            )
        return name


class Data(Section):
    train: str = POCKET  # a file of questions, or "pocket"
    test: str = POCKET
    corpus: str = POCKET
    questions_per_step: Rollouts = 512
    test_questions: Rollouts | None = None  # None = all


class Model(Section):
    path: str = POCKET  # a folder, a hub name, or "pocket"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the engines; the learner keeps fp32 master weights
    trust_remote_code: Literal[False] = False


class Search(Section):
    retriever: Literal["dense", "bm25", "hybrid"] = "dense"
    encoder: str = "minilm"  # the paper: intfloat/e5-base-v2
    query_prefix: str = ""
    passage_prefix: str = ""
    index: Literal["flat", "fp16", "hnsw", "ivfpq"] = "flat"  # of dense retrieval; docs/retrieval.md compares them
    faiss_index: str = ""  # a ready index: a folder of workflows/build_index.py, or a FAISS file
    tokens: TokenUnit = TokenUnit.WORDS  # of BM25; "unspaced" for Chinese, Japanese, Thai, … (docs/retrieval.md)
    reranker: Literal["late", "cross", "none"] = "late"  # the paper: cross (needs a model hub)
    late_scores: Literal["weighted", "colbert"] = "weighted"
    cross_encoder: str = "cross-encoder/ms-marco-MiniLM-L12-v2"
    top_k_retrieve: int = Field(20, ge=1, le=10_000)
    top_k: int = Field(3, ge=1, le=10_000)
    device: str = "cpu"
    replicas: Processes = 1
    shards: Processes = 1  # of faiss_index: deployments that it is spread over
    http_port: int | None = Field(None, ge=1, le=65_535)  # None = no HTTP: training goes through Serve handles
    url: str = ""  # of a retrieval server that is up, e.g. Search-R1's: it is asked, and no app is started
    url_shape: Literal["search_r1", "calibadv"] = "search_r1"  # of its requests
    token_env: str = ""  # environment variable with the bearer token of `url`, or of http_port's callers
    timeout_s: Seconds = 30.0
    patience_s: float = Field(
        120.0, ge=0, le=7 * 86_400
    )  # a query is asked again for so long, then given up (infra_failed)


class Rollout(Section):
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
    def _room(self) -> Rollout:
        if self.max_prompt_tokens >= self.max_tokens:
            raise ValueError(
                f"rollout.max_prompt_tokens = {self.max_prompt_tokens} leaves no room in "
                f"rollout.max_tokens = {self.max_tokens}: lower the first or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _ipc_needs_one_gpu(self) -> Rollout:
        if self.weight_transfer == "cuda_ipc" and self.placement != "colocated":
            raise ValueError(
                f"rollout.weight_transfer = 'cuda_ipc' is between an engine and a learner on one GPU, and "
                f"rollout.placement = {self.placement!r} gives each its own: set it to 'auto'"
            )
        return self


class Reward(Section):
    tokens: TokenUnit = TokenUnit.WORDS  # of answers; "unspaced" for Chinese, Japanese, Thai, … (docs/evaluation.md)


class MethodChoice(Section):
    name: str = "calibadv"
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _exists(self) -> MethodChoice:
        make_method(self.name, self.params)
        return self


class LearnerSection(Section):
    learners: int = Field(0, ge=0, le=10_000)  # 0 = in the driver process
    gpus_per_learner: float = Field(0, ge=0, le=1024)
    zero: Literal[0, 1, 2, 3] = 0  # what learners share out (DeepSpeed): 1 moments, 2 and gradients, 3 and weights
    threads: int = Field(1, ge=1, le=1024)
    dtype: Literal["float32", "bfloat16"] = "float32"  # bfloat16 = autocast over fp32 master weights
    lr: float = Field(5e-7, gt=0, le=1)
    lr_final: Share = 0.0  # the cosine's end
    warmup_steps: int = Field(0, ge=0, le=10**7)  # training steps over which the policy's rate rises, then the cosine
    critic_warmup_steps: int = Field(0, ge=0, le=10**7)  # and the critic's, which is constant then
    critic_only_steps: int = Field(0, ge=0, le=10**7)  # first steps, in which the policy stays as it is
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: Coefficient = 0.01
    grad_clip: float = Field(1.0, gt=0, le=10**9)
    minibatch_rollouts: Rollouts = 256
    passes: int = Field(1, ge=1, le=1000)  # over a step's rollouts, each with mini-batches of its own draw
    token_budget: Tokens = 16384  # padded tokens a micro-batch
    clip: float = Field(0.2, gt=0, le=10**6)
    kl_coef: Coefficient = 0.0  # low-variance KL against the frozen start
    entropy_coef: Coefficient = 0.0
    old_logprobs: Literal["sampler", "recompute"] = "sampler"
    importance_cap: float | None = Field(None, gt=0, le=10**6)  # truncated importance sampling; needs recompute
    gradient_checkpointing: bool = False
    # Adapters beside frozen weights (Hu et al. 2022); without dropout, for the ratio compares with an engine without
    lora_rank: int = Field(0, ge=0, le=10**5)  # 0 = all weights are trained
    lora_alpha: float = Field(16.0, gt=0, le=10**6)  # an adapter's part of a weight is alpha / rank times B A
    lora_targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"  # of the decoder's blocks, or some by name

    @field_validator("lora_targets", mode="before")
    @classmethod
    def _all_or_named(cls, targets: Any) -> Any:
        named = isinstance(targets, list | tuple) and targets and all(isinstance(t, str) and t for t in targets)
        if targets == "all-linear" or named:
            return targets
        raise ValueError(
            f"learner.lora_targets = {shown(targets)}: expected 'all-linear' or a list of names of linear layers, "
            "e.g. ['q_proj', 'v_proj']"
        )

    @model_validator(mode="after")
    def _importance_needs_recompute(self) -> LearnerSection:
        if self.importance_cap is not None and self.old_logprobs != "recompute":
            raise ValueError(
                "learner.importance_cap corrects recomputed log-probs: set learner.old_logprobs 'recompute'"
            )
        return self

    @model_validator(mode="after")
    def _several_share(self) -> LearnerSection:
        if self.zero and self.learners < 2:
            raise ValueError(
                f"learner.zero = {self.zero} shares a state between learners, and learner.learners = {self.learners} "
                "is no more than one: set learner.learners to 2 or more, or learner.zero to 0"
            )
        return self


class Evaluation(Section):
    every: Steps | None = None  # steps; None = before and after training only
    questions: Rollouts = 128  # of the evaluations in between; before and after use all


_LIMITS = Limits()


class SentinelSection(Section):
    """The collapse sentinel; `calibadv.collapse.Limits` says what each limit means. Here `inf` turns a limit off."""

    model_config = ConfigDict(allow_inf_nan=True)

    # Of a policy that cannot learn: few well-formed rollouts in the first evaluation, or no advantage in the first step
    unready: Literal["off", "warn", "stop"] = "stop"
    format_floor: float = Field(0.05, ge=0, le=1)  # share of well-formed rollouts that it needs at its start
    action: Literal["off", "warn", "stop", "rollback"] = "warn"  # of the alarms below
    high_ppl_ratio: float = _LIMITS.high_ppl_ratio
    ppl_factor: float = _LIMITS.ppl_factor
    entropy_factor: float = _LIMITS.entropy_factor
    entropy_floor: float = _LIMITS.entropy_floor
    repetition: float = _LIMITS.repetition
    neg_pos_ratio: float = _LIMITS.neg_pos_ratio
    no_advantage_steps: int = Field(_LIMITS.no_advantage_steps, ge=0, le=10**6)  # 0 = off
    baseline_steps: Steps = _LIMITS.baseline_steps
    patience: Steps = _LIMITS.patience
    snapshot_every: Steps = 5  # steps; rollback only
    lr_scale: float = Field(0.5, gt=0, le=1)  # of learning rates after each roll-back
    max_rollbacks: int = Field(3, ge=1, le=10**6)  # one more ends the run

    @model_validator(mode="after")
    def _limits_make_sense(self) -> SentinelSection:
        _ = self.limits  # raises for what limits nothing or everything
        return self

    @property
    def limits(self) -> Limits:
        """The limits among the settings."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})


class CheckpointSection(Section):
    """What a run is resumed from (docs/resume.md)."""

    every: int = Field(10, ge=0, le=10**7)  # steps, and after the last one; 0 = none, so that the run cannot be resumed
    keep_last: int = Field(2, ge=1, le=10**6)
    keep_best: bool = True  # by eval/f1: an evaluated version that beats all before it is kept as well
    uri: str = ""  # a folder or fsspec URI (s3://…), below which the run's name is added; "" = in the run folder
    max_restarts: int = Field(
        3, ge=0, le=10**6
    )  # after a lost learner or node (docs/reliability.md), in one command; 0 = never

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, uri: str) -> str:
        if "://" in uri and "@" in uri.partition("://")[2].partition("/")[0]:
            raise ValueError("checkpoint.uri has credentials in it, which would be logged: set them in the environment")
        return uri


class Cluster(Section):
    address: str = "local"  # "auto" joins the running cluster
    logical_cpus: int | None = Field(None, ge=1, le=10**6)  # local only; None = enough for all actors
    cpus_per_engine: float = Field(1.0, ge=0, le=1024)
    gpus_per_engine: float = Field(1.0, ge=0, le=1024)  # for each of its tensor-parallel ranks
    gpu: Literal["", "A100", "H100", "H200", "H20"] = ""  # their kind: a dry run then models a step's time
    search_cpus: float = Field(0.5, ge=0, le=1024)  # a replica
    search_gpus: float = Field(0.0, ge=0, le=1024)
    stall_after_s: Seconds = 120.0  # a run that waits says for what, each time this has passed
    # Custom resources of Ray nodes: an actor goes only to nodes that have its own, e.g. engines to spot nodes. "" = any
    engines_on: str = ""
    learners_on: str = ""
    search_on: str = ""

    @model_validator(mode="after")
    def _roles_need_a_cluster(self) -> Cluster:
        for name in ("engines_on", "learners_on", "search_on"):
            if getattr(self, name) and self.address == "local":
                raise ValueError(
                    f"cluster.{name} = {getattr(self, name)!r} names a resource of a cluster's nodes, and a local Ray "
                    "has none: set cluster.address 'auto', or leave it empty"
                )
        return self


def role(resource: str) -> dict[str, float]:
    """What an actor asks for so that it goes to nodes with `resource`: too little to count there. {} for ""."""
    return {resource: 0.001} if resource else {}


class Tracking(Section):
    mlflow_uri: str = ""  # "" = SQLite beside the runs
    experiment: str = "calibadv"
    sampled_rollouts: int = Field(4, ge=0, le=10**6)  # groups a logged step, written as traces and to rollouts.jsonl
    sample_every: Steps = 5


class Config(Section):
    """Everything a run depends on."""

    run: Run = Run()
    data: Data = Data()
    model: Model = Model()
    search: Search = Search()
    rollout: Rollout = Rollout()
    reward: Reward = Reward()
    method: MethodChoice = MethodChoice()
    learner: LearnerSection = LearnerSection()
    evaluation: Evaluation = Evaluation()
    sentinel: SentinelSection = SentinelSection()
    checkpoint: CheckpointSection = CheckpointSection()
    cluster: Cluster = Cluster()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        rollouts = self.data.questions_per_step * self.rollout.samples
        if rollouts % self.learner.minibatch_rollouts:
            raise ValueError(
                f"data.questions_per_step x rollout.samples = {rollouts} rollouts do not divide into mini-batches of "
                f"learner.minibatch_rollouts = {self.learner.minibatch_rollouts}: the last update of a step would be "
                f"smaller than the others; try {_nearest_divisor(rollouts, self.learner.minibatch_rollouts)}"
            )
        learner = self.learner
        if self.rollout.max_staleness and learner.old_logprobs == "recompute" and learner.importance_cap is None:
            raise ValueError(
                f"rollout.max_staleness = {self.rollout.max_staleness} trains on rollouts of an older policy, and "
                "learner.old_logprobs = 'recompute' forgets which: set learner.importance_cap (e.g. 2.0), or "
                "learner.old_logprobs 'sampler'"
            )
        self._colocation()
        if self.cluster.learners_on and self.learner.learners == 0:
            raise ValueError(
                f"cluster.learners_on = {self.cluster.learners_on!r}, but learner.learners = 0 learns in the driver: "
                "set learner.learners to 1 or more"
            )
        if self.learner.zero and make_method(self.method.name, self.method.params).critic is not None:
            raise ValueError(
                f"learner.zero = {self.learner.zero} shares the policy's state alone, and method {self.method.name!r} "
                "trains a critic beside it: set learner.zero to 0"
            )
        critic = make_method(self.method.name, self.method.params).critic
        self._warm_up(has_critic=critic is not None)
        if self.learner.lora_rank and critic is not None and critic.kind == "model":
            raise ValueError(
                f"learner.lora_rank = {self.learner.lora_rank} trains adapters, and the critic of method "
                f"{self.method.name!r} is a second model that is trained in full: set method.params.critic 'head', or "
                "learner.lora_rank to 0"
            )
        if self.rollout.temperature != 1 and self.learner.old_logprobs == "sampler":
            raise ValueError(
                f"rollout.temperature = {self.rollout.temperature}: engines report log-probs at temperature 1, so set "
                "learner.old_logprobs 'recompute', or sample at temperature 1 as the paper does"
            )
        return self

    def _warm_up(self, *, has_critic: bool) -> None:
        """Raises ValueError where a rate never gets where it is to rise to, or where there is no critic to warm up."""
        learner, steps = self.learner, self.run.steps
        if learner.warmup_steps and learner.critic_only_steps + learner.warmup_steps >= steps:
            raise ValueError(
                f"learner.critic_only_steps = {learner.critic_only_steps} and learner.warmup_steps = "
                f"{learner.warmup_steps} leave none of run.steps = {steps} at learner.lr: lower them"
            )
        for name in ("critic_warmup_steps", "critic_only_steps"):
            value = getattr(learner, name)
            if value and not has_critic:
                raise ValueError(
                    f"learner.{name} = {value} is of a critic, and method {self.method.name!r} has none: set it to 0"
                )
            if value and value >= steps:
                raise ValueError(f"learner.{name} = {value} leaves none of run.steps = {steps}: lower it")

    def _colocation(self) -> None:
        """Raises ValueError where engines and learners are to share GPUs and cannot."""
        rollout, learner, engine_gpus = self.rollout, self.learner, self.cluster.gpus_per_engine
        if rollout.placement != "colocated":
            return
        for key, wanted in (("max_staleness", 0), ("tensor_parallel", 1)):
            if (value := getattr(rollout, key)) != wanted:
                raise ValueError(
                    f"rollout.placement = 'colocated' lets an engine and a learner take turns on a GPU, and "
                    f"rollout.{key} = {value}: set it to {wanted}, or rollout.placement 'separate'"
                )
        if engine_gpus == 0 and learner.gpus_per_learner == 0:
            return
        together = engine_gpus + learner.gpus_per_learner
        if not (engine_gpus > 0.5 and together <= 1.0001 and together + learner.gpus_per_learner > 1.0001):
            raise ValueError(
                f"rollout.placement = 'colocated' with cluster.gpus_per_engine = {engine_gpus:g} and "
                f"learner.gpus_per_learner = {learner.gpus_per_learner:g}: for exactly one engine and one learner on a "
                "GPU the first must be above 0.5 and both together 1, e.g. 0.6 and 0.4"
            )
        if not 1 <= learner.learners <= rollout.engines:
            raise ValueError(
                f"rollout.placement = 'colocated' puts each learner beside an engine, and learner.learners = "
                f"{learner.learners} with rollout.engines = {rollout.engines}: set from 1 to {rollout.engines} learners"
            )

    @model_validator(mode="after")
    def _no_secrets(self) -> Config:
        if keys := secret_keys(self.model_dump()):
            raise ValueError(
                f"{', '.join(keys)} holds a password or a token, and the configuration is written to runs/ and to "
                "MLflow: take it out. search.token_env is the name of an environment variable, MLflow reads "
                "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return self

    @property
    def run_name(self) -> str:
        return self.run.name or f"{self.method.name}-seed{self.run.seed}"

    @property
    def rollouts_per_step(self) -> int:
        return self.data.questions_per_step * self.rollout.samples

    @property
    def minibatches_per_pass(self) -> int:
        return self.rollouts_per_step // self.learner.minibatch_rollouts

    @property
    def updates_per_step(self) -> int:
        return self.minibatches_per_pass * self.learner.passes


class ConfigError(ValueError):
    """A configuration that cannot be used, said in one line a problem."""


def load_config(recipe: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The recipe's TOML with `--section.key value` (or `--section.key=value`) overrides applied, validated.

    Raises `ConfigError` naming key, value, expectation and the nearest right key.
    """
    tree = {} if recipe is None else read_toml(recipe, "recipe", "workflows/recipes/pocket.toml")
    for dotted, text in _pairs(overrides):
        _assign(tree, dotted, text)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from None


def read_toml(path: Path, what: str, example: str) -> dict[str, Any]:
    """The tables of a TOML file; `ConfigError` if it cannot be read, in words for `what` it is, e.g. a recipe."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no {what} at {path}: give a TOML file, e.g. {example}") from None
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not TOML that can be read: it is nested too deeply") from None
    except ValueError as error:  # not only TOMLDecodeError: also bytes that are no text, and numbers without end
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    pairs, waiting = [], list(arguments)
    while waiting:
        flag = waiting.pop(0)
        if not flag.startswith("--"):
            near = suggestion(flag.partition("=")[0], _every_key()) if "=" in flag else ""
            raise ConfigError(f"unexpected argument {flag!r}{near}: overrides are --section.key value")
        key, equals, value = flag[2:].partition("=")
        if not equals:
            if not waiting or (waiting[0].startswith("--") and "." in waiting[0]):
                raise ConfigError(f"--{key} has no value: overrides are --section.key value")
            value = waiting.pop(0)
        pairs.append((key.replace("-", "_"), value))
    return pairs


def _assign(tree: dict[str, Any], dotted: str, text: str) -> None:
    *parents, leaf = dotted.split(".")
    if not parents:
        raise ConfigError(f"--{dotted} names no section{suggestion(dotted, _every_key())}: use --section.key value")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--{dotted}: {parent} is a value, not a section")
    try:
        tree[leaf] = _value(text, _type_of(dotted))
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"--{dotted} cannot be read: {error}") from None


def _value(text: str, kind: Any) -> Any:
    if text.lower() in ("none", "null") and type(None) in get_args(kind):  # elsewhere "none" is a word like any other
        return None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string
    return text if kind in (str, Path) and not isinstance(value, str) else value  # a run may be called 42


def _type_of(dotted: str) -> Any:
    """The annotation of a key of a section; None for one that does not exist, and for a method's parameters."""
    section, _, key = dotted.partition(".")
    known = Config.model_fields.get(section)
    field = getattr(known.annotation, "model_fields", {}).get(key) if known is not None else None
    return field.annotation if field is not None else None


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _every_key()
        misspelt = "." in where or difflib.get_close_matches(where, list(Config.model_fields), cutoff=0.8)
        wrong = [where] if misspelt else _leaves(where, problem["input"])
        return "\n".join(f"unknown key {key!r}{suggestion(key, known)}" for key in wrong)
    message = problem["msg"].removeprefix("Value error, ")
    # Our own validators name the key themselves.
    return message if problem["type"] == "value_error" else f"{where} = {shown(problem['input'])}: {message}"


def _leaves(where: str, value: Any) -> list[str]:
    """The dotted names below an unknown section, such as another trainer's; itself where it holds none."""
    if not isinstance(value, dict) or not value:
        return [where]
    return [leaf for key, below in value.items() for leaf in _leaves(f"{where}.{key}", below)]


def _every_key() -> list[str]:
    keys = []
    for section, field in Config.model_fields.items():
        assert isinstance(field.annotation, type)
        keys += [section, *(f"{section}.{key}" for key in field.annotation.model_fields)]
    return keys


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
