"""What a configuration comes to, in numbers, before anything is started: rollouts, updates, tokens, and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calibadv.config import POCKET, Config
from calibadv.losses import chunk_of
from calibadv.memory.items import (
    activation_bytes,
    head_bytes,
    kv_token_bytes,
    model_parameters,
    state_items,
    sum_bytes,
    trained_and_frozen,
)
from calibadv.memory.parts import (
    Part,
    gpus_wanted,
    micro_batch_tokens,
    parts_of,
    weight_bytes,
)
from calibadv.memory.shape import ModelShape, adapter_parameters, model_shape
from calibadv.pocket import policy_path


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Sizes that follow from the model's shape. Those of a learner are of one, wherever it runs."""

    shape: ModelShape
    trained_parameters: int  # those of the adapters, or all; a critic's model is among them
    weights_bytes: int  # in the engines' dtype: what an engine holds and what is published to it
    kv_cache_bytes: int  # of a rollout of full length
    state_bytes: float  # fp32 weights, gradients and AdamW's moments, shared by nobody
    held_bytes: float  # of that state, by each of several learners that share it
    reference_bytes: int  # of a frozen copy that each keeps for a KL term
    checkpoint_bytes: int  # weights and moments of what trains, fp32
    activations_bytes: float  # of a micro-batch; an estimate
    head_bytes: int  # of a chunk's logits, and of the head's gradient

    @property
    def parameters(self) -> int:
        return self.shape.parameters

    @property
    def saved_bytes(self) -> int:
        """A whole checkpoint: that, and the policy."""
        return self.checkpoint_bytes + self.weights_bytes

    @property
    def learner_bytes(self) -> float:
        """What a learner holds in an update."""
        return self.held_bytes + self.reference_bytes + self.activations_bytes + self.head_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of a run. Of tokens and searches they are the most that there can be.

    `model` is None where `unknown` says why the shapes are not known; `parts` are those that have GPUs.
    """

    step_rollouts: int
    step_updates: int
    step_sampled_tokens: int
    step_tokens: int  # with prompts and documents
    step_searches: int
    run_rollouts: int
    run_updates: int
    rest_updates: int  # learning rate 0, while a critic learns alone
    warmup_updates: int  # that it rises over
    cosine_updates: int  # that it falls over
    gpus: float
    model: ModelSizes | None = None
    parts: tuple[Part, ...] = ()
    unknown: str = ""


def plan_of(config: Config) -> Plan:
    """The configuration's plan. Nothing is started, and at most a model's config.json is asked for."""
    rollout, learner, steps = config.rollout, config.learner, config.run.steps
    rollouts, updates = config.rollouts_per_step, config.updates_per_step
    rest, warmup = learner.critic_only_steps * updates, learner.warmup_steps * updates
    sampled_tokens = min((rollout.max_turns + 1) * rollout.max_turn_tokens, rollout.max_tokens)
    model: ModelSizes | None = None
    parts: tuple[Part, ...] = ()
    unknown = ""
    try:
        model = model_sizes(config, shape := shape_of(config))
        parts = tuple(parts_of(config, shape))
    except ValueError as error:
        unknown = str(error)
    return Plan(
        step_rollouts=rollouts,
        step_updates=updates,
        step_sampled_tokens=rollouts * sampled_tokens,
        step_tokens=rollouts * rollout.max_tokens,
        step_searches=rollouts * rollout.max_turns,
        run_rollouts=steps * rollouts,
        run_updates=steps * updates,
        rest_updates=rest,
        warmup_updates=warmup,
        cosine_updates=steps * updates - rest - warmup,
        gpus=gpus_wanted(config),
        model=model,
        parts=parts,
        unknown=unknown,
    )


def shape_of(config: Config) -> ModelShape:
    """The policy's shape. ValueError where it is not known."""
    return model_shape(str(policy_path()) if config.model.path == POCKET else config.model.path)


def model_sizes(config: Config, shape: ModelShape) -> ModelSizes:
    """Bytes that follow from the shape. ValueError for adapters beside layers that it does not have."""
    learner, item = config.learner, weight_bytes(config)
    device = torch.device("cuda" if learner.gpus_per_learner else "cpu")
    adapters = adapter_parameters(shape, learner.lora_rank, learner.lora_targets)
    method = config.method.made
    trained, frozen = trained_and_frozen(shape, critic=method.critic_kind, adapters=adapters)
    held = state_items(
        trained,
        frozen=frozen,
        zero=learner.zero,
        learners=max(learner.learners, 1),
        half=learner.weights == "bfloat16",
    )
    activations = activation_bytes(
        shape,
        micro_batch_tokens(config),
        autocast=learner.dtype == "bfloat16",
        checkpointing=learner.gradient_checkpointing,
        adapters=adapters > 0,
    )
    return ModelSizes(
        shape,
        trained_parameters=trained,
        weights_bytes=item * shape.parameters,
        kv_cache_bytes=kv_token_bytes(shape, item) * config.rollout.max_tokens,
        state_bytes=sum_bytes(state_items(trained, frozen=frozen)),
        held_bytes=sum_bytes(held),
        reference_bytes=4 * shape.parameters if method.needs_reference(learner.kl_coef) and not adapters else 0,
        checkpoint_bytes=12 * trained,
        activations_bytes=activations * len(model_parameters(shape, method.critic_kind)),
        head_bytes=head_bytes(
            shape, chunk_of(device, shape.vocabulary), autocast=learner.dtype == "bfloat16", adapters=adapters > 0
        ),
    )
