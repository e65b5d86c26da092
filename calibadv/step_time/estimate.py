"""What a configuration's step would take on the GPUs that it names: `cluster.gpu`."""

from __future__ import annotations

from typing import Literal

from calibadv.config import Config
from calibadv.memory.shape import ModelShape
from calibadv.methods import make_method
from calibadv.step_time.gpu import GPUS
from calibadv.step_time.layout import Engines, Layout, Learners
from calibadv.step_time.model import StepTime, step_time
from calibadv.step_time.work import Work


def estimate(config: Config, shape: ModelShape) -> StepTime | None:
    """The modelled step; None where no GPU is named, or where engines or learners have none."""
    cluster, learner = config.cluster, config.learner
    if not cluster.gpu or cluster.gpus_per_engine == 0 or learner.gpus_per_learner == 0:
        return None
    return step_time(shape, GPUS[cluster.gpu], work_of(config), layout_of(config))


def work_of(config: Config) -> Work:
    """The configuration's questions and samples, and the assumed rollout as far as its limits let it grow."""
    rollout, mean = config.rollout, Work()
    turns = min(mean.turns, rollout.max_turns + 1)
    return Work(
        questions=config.data.questions_per_step,
        samples=rollout.samples,
        prompt_tokens=min(mean.prompt_tokens, rollout.max_prompt_tokens),
        turns=turns,
        action_tokens=min(mean.action_tokens, rollout.max_turn_tokens),
        observation_tokens=min(mean.observation_tokens, rollout.max_observation_tokens),
        longest_turns=rollout.max_turns + 1,
        longest_action_tokens=min(mean.longest_action_tokens, (rollout.max_turns + 1) * rollout.max_turn_tokens),
    )


def layout_of(config: Config) -> Layout:
    """Engines, learners and retrievers as configured; a learner in the driver counts as one."""
    rollout, learner = config.rollout, config.learner
    critic = make_method(config.method.name, config.method.params).critic
    reference = learner.kl_coef > 0 or (critic is not None and critic.kl_reward > 0)
    item: Literal["bfloat16", "float32"] = config.model.dtype
    return Layout(
        Engines(
            rollout.engines,
            tensor_parallel=rollout.tensor_parallel,
            dtype=item,
            max_concurrent=rollout.max_concurrent,
            memory_share=rollout.gpu_memory_utilization,
        ),
        Learners(
            max(learner.learners, 1),
            zero=learner.zero,
            dtype=learner.dtype,
            checkpointing=learner.gradient_checkpointing,
            updates=config.minibatches_per_pass,
            passes=config.learner.passes,
            token_budget=learner.token_budget,
            models=1 + (critic is not None and critic.kind == "model"),
            adapters=learner.lora_rank > 0,
            forwards=(learner.old_logprobs == "recompute") + reference + (critic is not None),
        ),
        colocated=rollout.placement == "colocated",
        shared_memory=rollout.weight_transfer != "object_store",
        max_staleness=rollout.max_staleness,
        retrievers=config.search.replicas,
    )
