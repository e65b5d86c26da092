"""The sections of the configuration but for those with a file of their own."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from calibadv.alarms import Limits
from calibadv.methods import Method, make_method
from calibadv.methods.keep import with_keep
from calibadv.pocket import POCKET
from calibadv.refusals import short_repr
from calibadv.rewards.judge import Endpoint
from calibadv.rewards.outcome import JUDGE, make_outcome
from calibadv.rewards.overlong import Overlong
from calibadv.section import (
    Content,
    Decides,
    Local,
    Means,
    Result,
    Rollouts,
    Seconds,
    Section,
    Share,
    Steps,
    Task,
    Tokens,
    somewhere,
)
from calibadv.types import TokenUnit
from calibadv.user_code import names_code

LONGEST_NAME = 200  # bytes of a run's: file systems allow 255, and drafts of it have longer ones


class RunConfig(Section):
    """What the run is called, where it is written and how long it lasts."""

    decides: ClassVar[Decides] = Decides.PLACE

    name: str = ""
    """Of the run and its folder; "" = <method>-seed<seed>."""
    folder: Local[Path] = Path("runs")
    """Holds the run folders, one a run."""
    cache: Local[Path] = Path(".cache")
    """Of the pocket world and of embeddings; on a cluster, a path that every node has."""
    seed: Result[int] = Field(0, ge=0, lt=2**32)
    """Of the order of questions, the sampling and the mini-batches. What numpy takes: below 2^32."""
    steps: Task[Steps] = 205
    """Training steps, also of the learning rate's cosine. 205 are the paper's one epoch (appendix G) of HotpotQA and
    2Wiki; Qwen2.5-3B has two."""
    overwrite: bool = False
    """Whether a folder of the same name is written anew; otherwise a run that is there is refused."""

    @field_validator("folder", "cache", mode="before")
    @classmethod
    def _somewhere(cls, folder: Any) -> Any:
        return somewhere(folder, "a folder, e.g. '.' for the current one")

    @field_validator("name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if name in (".", "..") or "/" in name or not name.isprintable():
            raise ValueError(f"run.name = {short_repr(name)}: expected the name of one folder, without '/'")
        if len(name.encode()) > LONGEST_NAME:
            raise ValueError(
                f"run.name = {short_repr(name)}: {len(name.encode())} bytes are too long for a folder's name, "
                f"expected at most {LONGEST_NAME}"
            )
        return name


class DataConfig(Section):
    """What is asked, and in which documents the answers are (docs/data.md)."""

    decides: ClassVar[Decides] = Decides.TASK

    train: Content[Local[str]] = POCKET
    """Training questions: a file, or "pocket"."""
    test: Content[Local[str]] = POCKET
    """Questions of evaluations: a file, or "pocket"."""
    corpus: Content[Local[str]] = POCKET
    """Documents to search: a file, a store of workflows/prepare_data.py, or "pocket"."""
    questions_per_step: Rollouts = 512
    """Questions of a training step; the paper's batch size (appendix G)."""
    test_questions: Rollouts | None = None
    """The first so many test questions; none = all."""

    @field_validator("train", "test", "corpus")
    @classmethod
    def _somewhere(cls, file: str) -> str:
        return somewhere(file, f"a file, or {POCKET!r}")


class ModelConfig(Section):
    """The policy that is trained."""

    decides: ClassVar[Decides] = Decides.RESULT

    path: Content[Local[str]] = POCKET
    """A folder, a hub name, or "pocket"."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the engines' weights; the learner keeps float32 master weights."""
    trust_remote_code: Literal[False] = False
    """A model's own code is never run."""

    @field_validator("path")
    @classmethod
    def _somewhere(cls, path: str) -> str:
        return somewhere(path, f"a folder, a hub name, or {POCKET!r}")


class RewardConfig(Section):
    """How answers are scored."""

    decides: ClassVar[Decides] = Decides.TASK

    tokens: TokenUnit = TokenUnit.WORDS
    """Of answers; "unspaced" for Chinese, Japanese, Thai, … (docs/evaluation.md)."""
    outcome: Local[str] = "f1"
    """Of a whole rollout: f1 (gated by format), f1_ungated, em, cover_em, format_bonus, judge (a model says whether the
    answer is right), or a function of your own as file.py:name or package.module:name (docs/extend.md)."""
    turns: Result[Local[str]] = ""
    """Of each turn, for methods that read such rewards: a function of your own as file.py:name or package.module:name;
    "" = the method's own (docs/extend.md)."""
    overlong: Result[tuple[Tokens, Tokens] | None] = None
    """Tokens that a rollout samples: above the first the reward falls, in a line, to overlong_penalty less at the
    second (DAPO), e.g. [3072, 4096]; none = off."""
    overlong_penalty: Result[float] = Field(1.0, gt=0, le=1000)
    """What is taken off the reward of the longest rollouts; 1 in DAPO, whose rewards are 1 and -1."""
    judge_url: Means[str] = ""
    """Address of the judge, an OpenAI-compatible API with its path, e.g. http://127.0.0.1:8000/v1; its key is
    $JUDGE_API_KEY of the engines."""
    judge_model: str = ""
    """Name under which it serves the judge."""
    judge_concurrency: Means[Rollouts] = 64
    """Calls in flight over all engines of a run, each of which has an equal share."""
    judge_timeout_s: Means[Seconds] = 30.0
    """Seconds of one attempt."""
    judge_retries: Means[int] = Field(2, ge=0, le=100)
    """Attempts after one that failed; then the rollout's question is left out of the step."""

    @model_validator(mode="after")
    def _known(self) -> RewardConfig:
        penalty = self.length_penalty
        if not names_code(self.outcome):
            make_outcome(self.outcome, judge=self.judge, overlong=penalty)
        return self

    @property
    def length_penalty(self) -> Overlong | None:
        """What long rollouts cost. ValueError for bounds that are none."""
        return Overlong(*self.overlong, self.overlong_penalty) if self.overlong else None

    @property
    def judge(self) -> Endpoint | None:
        """The judge of answers, where there is one. ValueError for what cannot be one."""
        if self.outcome != JUDGE:
            return None
        return Endpoint(
            self.judge_url, self.judge_model, self.judge_concurrency, self.judge_timeout_s, self.judge_retries
        )


class MethodConfig(Section):
    """What advantages rollouts get (calibadv/methods/README.md)."""

    decides: ClassVar[Decides] = Decides.RESULT

    name: Local[str] = "calibadv"
    """A method of the README's index, e.g. calibadv or grpo, or a function of your own as file.py:name or
    package.module:name, which returns a `Method` (docs/extend.md)."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The method's own parameters, e.g. --method.params.lam 2.0; the README lists those of each."""
    keep: Local[str] = "all"
    """Groups that train: all; credited (those with any advantage: no group of equal rewards); or those for which a
    function of your own says so, file.py:name or package.module:name of a group."""
    spare_questions: int = Field(0, ge=0, le=1000)
    """Further questions that may be asked, one after the other, in place of one whose group method.keep drops: DAPO's
    sampling of more questions, with a bound; 0 = none."""

    @model_validator(mode="after")
    def _exists(self) -> MethodConfig:
        if self.made.keep is None and self.spare_questions:
            raise ValueError(
                f"method.spare_questions = {self.spare_questions} replaces groups that method.keep drops, and "
                f"method.keep = {self.keep!r} drops none: set method.keep 'credited', or method.spare_questions 0"
            )
        return self

    @cached_property
    def made(self) -> Method:
        """The method, made once. ValueError for a name or a parameter that there is not."""
        return with_keep(make_method(self.name, self.params), self.keep)

    def __getstate__(self) -> dict[Any, Any]:
        """Without the method, whose functions need not pickle: a process that asks for it makes its own."""
        return super().__getstate__() | {"__dict__": dict(self)}


class EvaluationConfig(Section):
    """How often the policy is evaluated while it trains."""

    decides: ClassVar[Decides] = Decides.RESULT

    every: Means[Steps | None] = None
    """Training steps between evaluations; none = before and after training only."""
    questions: Rollouts = 128
    """Of the evaluations in between; before and after training all are asked."""


class SentinelConfig(Limits):
    """The collapse sentinel (docs/diagnostics.md): the limits that it watches, and what it does about an alarm."""

    decides: ClassVar[Decides] = Decides.MEANS

    unready: Literal["off", "warn", "stop"] = "stop"
    """What is done about a policy that cannot learn: too few well-formed rollouts in the first evaluation, or no
    advantage in the first step."""
    format_floor: Share = 0.05
    """Share of well-formed rollouts that a policy needs at its start."""
    action: Literal["off", "warn", "stop", "rollback"] = "warn"
    """What is done about an alarm of the limits."""
    snapshot_every: Steps = 5
    """Training steps between the snapshots that a roll-back goes back to."""
    lr_scale: float = Field(0.5, gt=0, le=1)
    """What the learning rates are multiplied by after each roll-back."""
    max_rollbacks: int = Field(3, ge=1, le=10**6)
    """Roll-backs; one more alarm ends the run."""


class CheckpointConfig(Section):
    """What a run is resumed from (docs/resume.md)."""

    decides: ClassVar[Decides] = Decides.PLACE

    every: int = Field(10, ge=0, le=10**7)
    """Training steps between checkpoints, one more after the last step; 0 = none, so that the run cannot be resumed."""
    keep_last: int = Field(2, ge=1, le=10**6)
    """How many checkpoints are kept."""
    keep_best: bool = True
    """Whether a version whose eval/f1 beats all before it is kept as well."""
    uri: Local[str] = ""
    """A folder or fsspec URI (s3://…), below which the run's name is added; "" = in the run folder."""
    max_restarts: int = Field(3, ge=0, le=10**6)
    """How often one command starts again by itself after a lost learner or node (docs/reliability.md); 0 = never."""

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, uri: str) -> str:
        # A user without a password is part of some addresses: abfs://container@account.dfs.core.windows.net/x
        if ":" in uri.partition("://")[2].partition("/")[0].rpartition("@")[0]:
            raise ValueError("checkpoint.uri has credentials in it, which would be logged: set them in the environment")
        return uri


class TrackingConfig(Section):
    """What is kept of a run beside its folder."""

    decides: ClassVar[Decides] = Decides.PLACE

    mlflow_uri: Local[str] = ""
    """MLflow's tracking server; "" = SQLite beside the runs."""
    experiment: str = "calibadv"
    """Of MLflow."""
    sampled_rollouts: int = Field(4, ge=0, le=10**6)
    """Groups of a logged step that are written as traces and to rollouts.jsonl."""
    sample_every: Steps = 5
    """Training steps between logged ones."""
    store_groups: Literal["none", "sampled", "all"] = "sampled"
    """Groups that are kept whole in groups/, for `calibadv explain`: those that are written out, or all."""
    report: bool = True
    """Whether the run's end writes report.html, its page (docs/report.md)."""
    register_as: str = Field("", pattern=r"^[^/:@]*$", max_length=200)
    """Name in MLflow's registry under which the final model becomes a version; "" = none."""
    groups_mb: float = Field(500.0, gt=0, le=1e6)
    """Size of groups/ above which every second step of it is dropped."""
