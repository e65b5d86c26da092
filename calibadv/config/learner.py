"""How the policy learns from rollouts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from calibadv.data.errors import shown
from calibadv.section import Beta, Coefficient, Rollouts, Section, Share, Tokens


class LearnerConfig(Section):
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
    def _importance_needs_recompute(self) -> LearnerConfig:
        if self.importance_cap is not None and self.old_logprobs != "recompute":
            raise ValueError(
                "learner.importance_cap corrects recomputed log-probs: set learner.old_logprobs 'recompute'"
            )
        return self

    @model_validator(mode="after")
    def _several_share(self) -> LearnerConfig:
        if self.zero and self.learners < 2:
            raise ValueError(
                f"learner.zero = {self.zero} shares a state between learners, and learner.learners = {self.learners} "
                "is no more than one: set learner.learners to 2 or more, or learner.zero to 0"
            )
        return self
