"""The sections of the configuration but for those with a file of their own."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from calibadv.collapse import Limits
from calibadv.data.errors import shown
from calibadv.methods import make_method
from calibadv.section import Rollouts, Section, Steps
from calibadv.types import TokenUnit

LONGEST_NAME = 200  # bytes of a run's: file systems allow 255, and drafts of it have longer ones
POCKET = "pocket"  # the embedded world and policy, as a data set and as a model


class RunConfig(Section):
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


class DataConfig(Section):
    train: str = POCKET  # a file of questions, or "pocket"
    test: str = POCKET
    corpus: str = POCKET
    questions_per_step: Rollouts = 512
    test_questions: Rollouts | None = None  # None = all


class ModelConfig(Section):
    path: str = POCKET  # a folder, a hub name, or "pocket"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the engines; the learner keeps fp32 master weights
    trust_remote_code: Literal[False] = False


class RewardConfig(Section):
    tokens: TokenUnit = TokenUnit.WORDS  # of answers; "unspaced" for Chinese, Japanese, Thai, … (docs/evaluation.md)


class MethodConfig(Section):
    name: str = "calibadv"
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _exists(self) -> MethodConfig:
        make_method(self.name, self.params)
        return self


class EvaluationConfig(Section):
    every: Steps | None = None  # steps; None = before and after training only
    questions: Rollouts = 128  # of the evaluations in between; before and after use all


_LIMITS = Limits()


class SentinelConfig(Section):
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
    def _limits_make_sense(self) -> SentinelConfig:
        _ = self.limits  # raises for what limits nothing or everything
        return self

    @property
    def limits(self) -> Limits:
        """The limits among the settings."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})


class CheckpointConfig(Section):
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


class TrackingConfig(Section):
    mlflow_uri: str = ""  # "" = SQLite beside the runs
    experiment: str = "calibadv"
    sampled_rollouts: int = Field(4, ge=0, le=10**6)  # groups a logged step, written as traces and to rollouts.jsonl
    sample_every: Steps = 5
