"""The whole configuration, and what its sections ask of each other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from pydantic import model_validator

from calibadv.config.cluster import ClusterConfig
from calibadv.config.learner import LearnerConfig
from calibadv.config.rollout import VLLM_MEANS, RolloutConfig
from calibadv.config.secrets import secret_keys
from calibadv.config.sections import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    RewardConfig,
    RunConfig,
    SentinelConfig,
    TrackingConfig,
)
from calibadv.config.serve import ServeConfig
from calibadv.methods import Method
from calibadv.rewards.own_turns import own_turns, unscored
from calibadv.search.settings import SearchConfig
from calibadv.section import Decides, Section, flat
from calibadv.user_code import called_here, load, names_code


class Config(Section):
    """Everything a run depends on."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    search: SearchConfig = SearchConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    method: MethodConfig = MethodConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    sentinel: SentinelConfig = SentinelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
    serve: ServeConfig = ServeConfig()

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
        if self.rollout.on_new_weights == "keep" and learner.old_logprobs == "recompute":
            raise ValueError(
                "rollout.on_new_weights = 'keep' mixes policies within a rollout, and learner.old_logprobs = "
                "'recompute' forgets which sampled what: set learner.old_logprobs 'sampler', or the first to 'drain'"
            )
        self._colocation()
        if self.reward.judge and self.reward.judge_concurrency < self.rollout.engines:
            raise ValueError(
                f"reward.judge_concurrency = {self.reward.judge_concurrency} calls over all rollout.engines = "
                f"{self.rollout.engines} leave an engine none: raise the one, or lower the other"
            )
        if learner.learners == 0 and learner.gpus_per_learner:
            raise ValueError(
                f"learner.gpus_per_learner = {learner.gpus_per_learner:g} with learner.learners = 0: the driver would "
                "learn on a GPU that Ray may give to an engine too; set learner.learners to 1"
            )
        if learner.fused and not learner.gpus_per_learner:
            raise ValueError(
                "learner.fused = true takes kernels for GPUs, and learner.gpus_per_learner = 0: set it to false, or "
                "give each learner a GPU"
            )
        if self.cluster.learners_on and self.learner.learners == 0:
            raise ValueError(
                f"cluster.learners_on = {self.cluster.learners_on!r}, but learner.learners = 0 learns in the driver: "
                "set learner.learners to 1 or more"
            )
        critic = self.run_method().critic
        if self.learner.zero and critic is not None:
            raise ValueError(
                f"learner.zero = {self.learner.zero} shares the policy's state alone, and method {self.method.name!r} "
                "trains a critic beside it: set learner.zero to 0"
            )
        self._warm_up(has_critic=critic is not None)
        if self.learner.lora_rank and critic is not None and critic.kind == "model":
            raise ValueError(
                f"learner.lora_rank = {self.learner.lora_rank} trains adapters, and the critic of method "
                f"{self.method.name!r} is a second model that is trained in full: set method.params.critic 'head', or "
                "learner.lora_rank to 0"
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
        if not rollout.colocated:
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
                "MLflow: take it out. search.token_env and the env of an MCP server are names of environment "
                "variables, search.http takes $NAME of one, MLflow reads MLFLOW_TRACKING_TOKEN, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return self

    def run_method(self) -> Method:
        """The method, with what other sections give it. ValueError where the two do not go together."""
        method, surrogate = self.method.made, self.learner.surrogate
        if method.surrogate is not None and surrogate != "ppo":
            raise ValueError(
                f"learner.surrogate = {surrogate!r}, and method {self.method.name!r} has a surrogate of its own: leave "
                "the setting at 'ppo'"
            )
        if method.reward is not None and self.reward.outcome != "f1":
            raise ValueError(
                f"reward.outcome = {self.reward.outcome!r}, and method {self.method.name!r} has a reward of its own: "
                "leave the setting at 'f1'"
            )
        if names_code(surrogate):
            if not callable(function := load(surrogate, "learner.surrogate")):
                raise ValueError(f"learner.surrogate = {surrogate!r} is no function: it is {function!r}")
            method = replace(method, surrogate=partial(called_here, function))
        return self._with_turn_rewards(method)

    def _with_turn_rewards(self, method: Method) -> Method:
        """The method, with the user's rewards of turns in place of its own. ValueError where it reads none."""
        turns, name = self.reward.turns, self.method.name
        if not turns and method.score_turns is unscored:
            raise ValueError(
                f"method {name!r} with method.params.soft_pen 'turns' reads rewards of turns that you make: set "
                "reward.turns"
            )
        if not turns:
            return method
        if method.score_turns is None:
            raise ValueError(
                f"reward.turns = {turns!r}, and method {name!r} reads no rewards of turns: leave it empty, or choose "
                "mt_grpo, stepsearch, criticsearch, or calibadv with method.params.soft_pen 'turns'"
            )
        return replace(method, score_turns=own_turns(turns, self.rollout.infra_retries), gold=None)

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted key, as JSON has it."""
        return flat(self.model_dump(mode="json"))

    @property
    def run_name(self) -> str:
        return self.run.name or f"{self.method.name.rpartition(':')[2]}-seed{self.run.seed}"

    @property
    def rollouts_per_step(self) -> int:
        return self.data.questions_per_step * self.rollout.samples

    @property
    def minibatches_per_pass(self) -> int:
        return self.rollouts_per_step // self.learner.minibatch_rollouts

    @property
    def updates_per_step(self) -> int:
        return self.minibatches_per_pass * self.learner.passes


def decides(key: str) -> Decides:
    """What a setting decides, by its dotted name; `RESULT` for one that there is not: another release may have it."""
    section, _, rest = key.partition(".")
    part, name = Config.model_fields.get(section), rest.partition(".")[0]
    if rest in VLLM_MEANS:
        return Decides.MEANS
    if part is None or name not in (kind := cast("type[Section]", part.annotation)).model_fields:
        return Decides.RESULT
    return kind.decision_of(name)


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
