"""The training loop: sample a step, update the policy on calibrated advantages, publish the new weights.

questions -> rollouts -> rewards -> advantages -> learner update -> weights -> metrics
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm

from calibadv.batching import GroupShard, shard_groups
from calibadv.checkpoints.folders import Draft, Stored
from calibadv.checkpoints.manifest import FileEntry
from calibadv.config import Config
from calibadv.methods.keep import kept_groups, no_credit
from calibadv.methods.rows import step_facts
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.env_runner import Look, StepSample
from calibadv.rllib.learner_group import PolicyLearnerGroup
from calibadv.rllib.learner_state import load_learners, roll_back_learners, save_learners
from calibadv.rllib.publish import publish_weights
from calibadv.rllib.seen_engines import SeenEngines
from calibadv.rllib.stall import START, Progress, StallWatch
from calibadv.rllib.totals import clipped_tokens, step_metrics, trained_credit
from calibadv.rollout.protocols import SearchFailed
from calibadv.rollout.seeds import sampling_seed
from calibadv.types import Credit, Group, Phase


class CalibAdvAlgorithm(Algorithm):  # type: ignore[misc]
    """One `train()` is one training step: as many optimizer updates as the step has mini-batches.

    It knows no method: credit is assigned by the learner connector that the configuration names.
    """

    learner_group: PolicyLearnerGroup

    @classmethod
    def get_default_config(cls) -> CalibAdvConfig:
        return CalibAdvConfig(algo_class=cls)

    def setup(self, config: CalibAdvConfig) -> None:
        """Builds the learners while the engines start. Rollouts begin when the first version is published.

        A run that goes on takes its learners' state from the checkpoint, and its version.
        """
        self.settings: Config = config.calibadv
        self.stall = StallWatch(self.settings.cluster.stall_after_s)
        self.engines = SeenEngines(self.config.coordinator, self.settings.rollout.engines)
        with self.waiting("engines and learners to start", self.engines.words, patience=self.engines.patience):
            super().setup(config)
        self.version = 0  # training steps made, and the policy version that they led to
        self.between_steps = True  # the learners stand between two steps: their state is that of `version`
        if (start := self.config.stream.start) is not None:
            with self.waiting("the learners to load the checkpoint", patience=START):
                load_learners(self.learner_group, start.checkpoint)
            self.version = start.version
        self.sample = StepSample()
        self.clipped: Counter[int] = Counter()  # token id -> how often the clip acted on it in the last step
        self.credit: dict[str, Credit] = {}  # question id -> the advantages that trained in the last step
        # Called with the learner's metrics before the new weights go out: the last moment to `roll_back` or to raise.
        self.inspect: Callable[[dict[str, float]], None] = lambda _: None
        # Around what must not be cut: between an update's begin and its end there is no state to go on from.
        self.uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.seconds: dict[str, float] = defaultdict(float)  # time of the last step by activity

    def _setup_logdir(self) -> None:
        """RLlib's folder of an algorithm, in which we keep nothing: in Ray's session, not in ~/ray_results."""
        node = ray._private.worker._global_node
        self._logdir = tempfile.mkdtemp(prefix="rllib-", dir=node.get_session_dir_path() if node else None)

    def training_step(self) -> None:
        """One step at version v: its rollouts were sampled by v, its updates make v + 1.

        RLlib's result of it is empty: `inspect` is given the metrics while a step can still be undone.
        """
        with self.timed("rollout"), self._rolling_out(Phase.TRAIN, f"the rollouts of step {self.version + 1}"):
            self.sample = self.env_runner.sample(phase=Phase.TRAIN, step=self.version)
        self.sample.engine_deaths = self.engines.count_deaths()
        if not self.sample.groups:
            raise SearchFailed(f"no question of step {self.version} could be rolled out: {_why_none(self.sample)}")
        stalest, allowed = max(self.sample.staleness), self.settings.rollout.max_staleness
        assert stalest <= allowed, f"a rollout is {stalest} versions old, at most {allowed} is allowed"
        with self.timed("sync"):
            self.sleep_engines()  # until the new version is published
        with self.uninterrupted():
            self.between_steps = False
            metrics = self.learn()
            self.inspect(metrics)
            self.version += 1
            self.between_steps = True
        with self.timed("sync"):
            self.publish()

    def learn(self) -> dict[str, float]:
        """Updates the policy on the step's rollouts; the learners' metrics."""
        what = f"the learners' update of step {self.version + 1}"
        with self.timed("learn"), self.waiting(what, progress=lambda: self.engines.updated(self.version)):
            updates = self.settings.updates_per_step
            groups = kept_groups(self.sample.groups, method := self.config.method.value)
            totals = self.learner_group.update_shards(
                self.shards(groups), num_minibatches=updates, facts=step_facts(groups)
            )
        dropped = {group.question.id: no_credit(group) for group in self.sample.groups}
        self.clipped, self.credit = clipped_tokens(totals), dropped | trained_credit(totals)
        share = {} if method.keep is None else {"learner/kept_share": len(groups) / len(self.sample.groups)}
        return step_metrics(totals) | share

    def shards(self, groups: Sequence[Group]) -> list[list[GroupShard]]:
        """The rollouts dealt to the learners; the same draw of mini-batches for every number of learners."""
        return shard_groups(
            groups,
            num_minibatches=self.settings.minibatches_per_pass,
            num_shards=self.learner_group.num_shards,
            seed=sampling_seed(self.settings.run.seed, self.version, "minibatches", 0),
            passes=self.settings.learner.passes,
            whole_groups=self.settings.learner.minibatch_draw == "groups",
            packed=self.settings.learner.pack_rows,
        )

    def publish(self) -> None:
        """Announces the learner's weights as the current version; engines pull them before their next rollout."""
        dtype = getattr(torch, self.settings.model.dtype)
        with self.waiting(f"the publication of version {self.version}"):
            if self.settings.rollout.colocated:
                self.learner_group.call_all(free_cached_memory)
            publish_weights(self.learner_group, self.config.coordinator, self.version, dtype)

    def evaluate_greedy(self, first: int = 0, look: Look = lambda _: None) -> StepSample:
        """Greedy rollouts of the scheduled test questions by the current version, through the same engines.

        `look` is shown the `first` of them as soon as they are in, and may raise.
        """
        what = f"the evaluation of version {self.version}"
        with self.timed("eval"), self._rolling_out(Phase.EVAL, what):
            sample: StepSample = self.env_runner.sample(phase=Phase.EVAL, step=self.version, first=first, look=look)
        if not sample.groups:
            raise SearchFailed(f"no question of {what} could be answered: {_why_none(sample)}")
        return sample

    def logprob_diff(self, groups: Sequence[Group]) -> dict[str, float]:
        """Engine against learner on rollouts of the current version: `eval/logprob_diff_*`. Trains nothing."""
        shards = [GroupShard(group, (0,) * len(group.trajectories)) for group in groups]
        self.sleep_engines()
        with self.waiting("the learners' log-probs of an evaluation"):
            totals = self.learner_group.call_all(lambda learner: learner.compare_logprobs(shards))
        self.wake_engines()
        metrics = step_metrics(totals[:1])
        names = ("logprob_diff_mean", "logprob_diff_max")
        return {f"eval/{name}": metrics[key] for name in names if (key := f"sync/{name}") in metrics}

    def search_metrics(self) -> dict[str, float]:
        """What the engines' searches came to since this was last asked; {} where nobody counts."""
        return dict(self.config.stream.search_counts())

    def save_model(self, folder: Path) -> None:
        """Writes the current policy as a folder that `from_pretrained` and vLLM open."""
        with self.waiting("the learners to save the model", patience=START):
            self.learner_group.call_all(lambda learner: learner.save_model(str(folder)))

    def save_state(self, draft: Draft, *, model: bool) -> dict[str, FileEntry]:
        """Writes the learners' state, and the policy itself if `model`; the files. See `save_learners`."""
        with self.waiting("the learners to save their state", patience=START):
            return save_learners(self.learner_group, draft, model=model)

    def roll_back(self, snapshot: Stored, lr_scale: float) -> None:
        """Goes back to a snapshot's policy, with learning rates times `lr_scale` from now on. Publishes nothing."""
        roll_back_learners(self.learner_group, snapshot, lr_scale)

    @property
    def num_learners(self) -> int:
        """Processes that hold a learner's state."""
        return self.learner_group.num_shards

    def sleep_engines(self) -> None:
        """Puts engines that share GPUs with the learners to sleep, until they are woken or given a version."""
        if self.settings.rollout.colocated:
            with self.waiting("the engines to sleep", self.engines.words):
                ray.get(self.engines.coordinator.sleep_all.remote())

    def wake_engines(self) -> None:
        """Lets engines that share GPUs with the learners wake for their next rollout."""
        if self.settings.rollout.colocated:
            self.learner_group.call_all(free_cached_memory)
            ray.get(self.engines.coordinator.wake_all.remote())

    def waiting(
        self,
        what: str,
        detail: Callable[[], str] | None = None,
        progress: Progress | None = None,
        patience: float | Callable[[], float] = 1.0,
    ) -> AbstractContextManager[None]:
        """Around what may stall: after `cluster.stall_after_s` (times `patience`) in which nothing moves, and each time
        again, a warning says what it is."""
        return self.stall.waiting(what, detail, progress, patience)

    def _rolling_out(self, phase: Phase, what: str) -> AbstractContextManager[None]:
        step, runner, engines = self.version, self.env_runner, self.engines
        return self.waiting(
            what,
            detail=lambda: f"{runner.progress(phase, step)}; {engines.words()}",
            progress=lambda: runner.progress(phase, step, engines.done(phase, step)),
            patience=1.0 if runner.engines_are_up else engines.patience,
        )

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Adds the wall seconds of its body to `seconds[activity]`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[activity] += time.monotonic() - start


def _why_none(sample: StepSample) -> str:
    """What left a step without any group, in words."""
    unscored = sample.counts["reward/failed_count"]
    return f"{unscored:g} rollouts have no reward" if unscored else "the search, or another tool, is down"


def free_cached_memory(_learner: Any) -> None:
    """Gives the GPU back what PyTorch keeps for later, for an engine that shares it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
