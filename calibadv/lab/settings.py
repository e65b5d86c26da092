"""What a laboratory run is made of, as one checked value."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from calibadv.config import LearnerConfig
from calibadv.lab.controls import lab_method
from calibadv.lab.tasks import PLAIN, TASKS, TaskName
from calibadv.methods.keep import with_keep
from calibadv.methods.method import Method

BEFORE = {"idle_updates": False}
"""What runs did that were stored before there was a key for it, where its default is another."""


class LabRun(BaseModel):
    """One run: a method, a seed, a learning rate, and whatever differs between the engine and the learner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = "grpo"  # of the registry, or one of the controls
    params: dict[str, Any] = Field(default_factory=dict)
    keep: str = "all"  # groups that train
    seed: int = Field(0, ge=0)
    world: int = Field(7, ge=0)
    task: TaskName = "plain"
    steps: int = Field(200, ge=1)
    questions: int = Field(12, ge=1)  # a step
    samples: int = Field(5, ge=1)  # rollouts a question
    updates: int = Field(4, ge=1)  # a pass over the step's rollouts
    passes: int = Field(1, ge=1)
    idle_updates: bool = True  # of mini-batches in which nothing has credit: as in training, momentum goes on
    lr: float = Field(5e-4, gt=0, allow_inf_nan=False)  # constant
    clip: float = Field(0.2, gt=0)
    kl_coef: float = Field(0.0, ge=0)
    entropy_coef: float = Field(0.0, ge=0)
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    logprobs_at: float = Field(1.0, gt=0, allow_inf_nan=False)  # temperature that log-probs are of
    top_p: float = Field(1.0, gt=0, le=1)  # cuts what is sampled from; log-probs are of the full distribution
    sampler_dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights that sample; arithmetic is float32
    old_logprobs: Literal["sampler", "recompute"] = "sampler"
    importance_cap: float | None = Field(None, gt=0)  # needs recompute
    loss: dict[str, Any] = Field(default_factory=dict)  # more of `LearnerConfig`: surrogate, divisor, masks, …
    staleness: int = Field(0, ge=0, le=4)  # how many steps older than the learner's the weights are that sample
    max_searches: int = Field(PLAIN.searches, ge=1)  # the task's, unless given
    max_turn_tokens: int = Field(PLAIN.turn_tokens, ge=8)  # as well
    max_tokens: int = Field(500, ge=64)  # of a whole rollout
    evaluate_every: int = Field(100, ge=1)  # steps; the last one is evaluated too
    evaluation_questions: int = Field(300, ge=1)  # held out, the same for all runs of a world
    stop_after_zeros: int = Field(15, ge=1)  # steps without any reward: nothing is left to learn from

    @classmethod
    def stored(cls, settings: str) -> Self:
        """The run that a table or a folder has in JSON, which may be older than some keys."""
        return cls.model_validate(BEFORE | json.loads(settings))

    @model_validator(mode="before")
    @classmethod
    def _of_the_task(cls, given: Any) -> Any:
        """The task's limits where none are given."""
        if isinstance(given, dict) and (task := TASKS.get(given.get("task", "plain"))):
            return {"max_searches": task.searches, "max_turn_tokens": task.turn_tokens, **given}
        return given

    @model_validator(mode="after")
    def _exists(self) -> LabRun:
        self.make_method()
        self.learner()
        return self

    def make_method(self) -> Method:
        """The method, new. ValueError for one that does not exist or a parameter that it does not have."""
        return with_keep(lab_method(self.method, self.params), self.keep)

    def learner(self) -> LearnerConfig:
        """The project's learner settings of this run."""
        return LearnerConfig(
            lr=self.lr,
            lr_final=self.lr,
            weight_decay=0.0,
            minibatch_rollouts=max(self.questions * self.samples // self.updates, 1),
            clip=self.clip,
            kl_coef=self.kl_coef,
            entropy_coef=self.entropy_coef,
            old_logprobs=self.old_logprobs,
            importance_cap=self.importance_cap,
            **self.loss,
        )
