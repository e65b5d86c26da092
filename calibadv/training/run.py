"""One training run from first evaluation to summary: the loop around the algorithm, and what makes it safe to end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from calibadv.checkpoints.progress import Best, Progress
from calibadv.config import Config
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.env_runner import StepSample
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.rllib.lost import LearnersLost
from calibadv.rllib.schedule import evaluation_versions
from calibadv.tracking.run_files import CONFIG
from calibadv.tracking.time_left import TimeLeft
from calibadv.training.checkpoints import Checkpoints
from calibadv.training.inputs import Inputs
from calibadv.training.metrics import (
    evaluation_metrics,
    most_changed,
    predictions,
    sample_metrics,
    sampled_records,
    time_metrics,
)
from calibadv.training.parts import Started
from calibadv.training.readiness import LOOK, Readiness, Unready, teach, well_formed
from calibadv.training.records import Records
from calibadv.training.sentinel import Sentinel
from calibadv.training.signals import Interruption
from calibadv.types import Group
from calibadv.views.summary import RunSummary

logger = logging.getLogger(__name__)

COMPARED_QUESTIONS = 32  # of an evaluation, engine against learner: after the last update no step does that


@dataclass
class TrainingRun:
    """Trains, evaluates before, between and after, and keeps what a run goes on from."""

    config: Config
    inputs: Inputs
    records: Records
    checkpoints: Checkpoints
    started: Started
    interruption: Interruption = field(default_factory=Interruption)
    resumed: Progress | None = None  # how far the run was that goes on
    begun_s: float = field(default_factory=time.monotonic)
    starts_again: Callable[[BaseException], bool] = lambda _: False  # whether that error is followed by a restart

    def __post_init__(self) -> None:
        self.progress = self.resumed or Progress()
        self.sentinel = Sentinel(self.config.sentinel, self.checkpoints.snapshots)
        if self.resumed is not None:
            self.sentinel.restore(self.resumed.sentinel)
        self.readiness = Readiness(self.config.sentinel, self._remedy)
        steps, between = self.config.run.steps, self.config.evaluation.questions
        self.evaluated = evaluation_versions(self.config)
        self.time_left = TimeLeft(steps, {v: None if v in (0, steps) else between for v in self.evaluated})
        self.metrics: dict[str, float] = {}  # of the step that was learned last
        self.compared_f1 = 0.0  # of the last evaluation, on the questions that every evaluation asks

    def execute(self) -> RunSummary:
        """The whole run. Whatever ends it early, what was learned up to then is saved first.

        Raises `CheckpointFailed` at the end, with all else written, if the last checkpoint could not be.
        """
        with self.started(self.config, self.inputs, self.records.view) as algorithm:
            try:
                self._begin(algorithm)
                while algorithm.version < self.config.run.steps:
                    self._step(algorithm)
            except BaseException as error:
                # A lost learner shows itself as many an error, e.g. where engines fetch weights that it owned.
                lost = algorithm.learner_group.lost() if isinstance(error, Exception) else None
                self._save_last_step(algorithm, lost or error)
                self._write_after_failure(algorithm)
                if isinstance(error, Exception):
                    self.interruption.raise_waiting()
                if lost is not None and lost is not error:
                    raise lost from error
                raise
            folder = self.records.folder
            algorithm.save_model(folder.model)
            self.records.diagnostics(self.progress.clipped)
        summary = self.records.finished(self.progress, self._wall_s())
        if self.checkpoints.failure:
            raise CheckpointFailed(
                f"the run has finished and its model is in {folder.model}, but {self.checkpoints.failure}"
            )
        return summary

    def _begin(self, algorithm: CalibAdvAlgorithm) -> None:
        algorithm.inspect = lambda learned: self._inspect(algorithm, learned)
        algorithm.uninterrupted = self.interruption.deferred
        if algorithm.version in self.evaluated and algorithm.version not in self.progress.evaluations:
            self._first_evaluation(algorithm)
        self.sentinel.begin(algorithm)

    def _first_evaluation(self, algorithm: CalibAdvAlgorithm) -> None:
        """Before training, or of the version at which a run was interrupted while it was evaluated."""
        version, view = algorithm.version, self.records.view
        view.stage("First evaluation", "the engines' start, then greedy answers to the test questions")
        metrics, groups = self._evaluate(algorithm, look=version == 0)
        view.stage_done(f"F1 {metrics['eval/f1']:.3f}")
        with self.interruption.deferred():
            self.records.folder.append_metrics(version, metrics | algorithm.search_metrics())
            self.progress = self.progress.evaluated(version, metrics)
            if version > 0 and self.checkpoints.settings.every:
                # Its checkpoint is whole and stays as it is: an object store cannot replace one without a moment that
                # has neither. The next one has these figures; a run that ends before that evaluates again.
                before, best = self.checkpoints.standing(), self.checkpoints.improved(version, self.compared_f1)
                self.checkpoints.best = best or self.checkpoints.best
                self.records.saved(self.progress, self.checkpoints, before)
        if version == 0:
            self.readiness.evaluated(groups)

    def _step(self, algorithm: CalibAdvAlgorithm) -> None:
        start, step = time.monotonic(), algorithm.version
        evaluation: dict[str, float] = {}
        algorithm.seconds.clear()
        try:
            algorithm.train()
            if algorithm.version in self.evaluated:
                evaluation, _ = self._evaluate(algorithm)
        finally:
            if algorithm.version > step:  # learned, whatever may have ended the evaluation
                with self.interruption.deferred():
                    self._record(algorithm, step, evaluation, start)
        if step == 0:
            self.readiness.stepped(self.metrics, algorithm.sample.groups)
        if evaluation:
            self.records.overview(algorithm.version)
        best = self.checkpoints.improved(algorithm.version, self.compared_f1) if evaluation else None
        last = algorithm.version == self.config.run.steps
        if best is not None or self.checkpoints.due(algorithm.version, last=last):
            self._checkpoint(algorithm, best)

    def _record(self, algorithm: CalibAdvAlgorithm, step: int, evaluation: dict[str, float], start: float) -> None:
        """Writes down a step that was made: all of it, before anything may interrupt."""
        metrics = self.metrics | evaluation | {"rollout/questions": float(len(algorithm.sample.groups))}
        metrics |= time_metrics(algorithm.seconds, time.monotonic() - start, metrics["rollout/tokens_sampled"])
        metrics |= algorithm.search_metrics()
        rollouts = sampled_records(algorithm.sample, self.inputs.method, algorithm.credit, step)
        self.time_left.stepped(metrics["time/step_s"] - metrics["time/eval_s"])
        self.records.step(algorithm.version, metrics, rollouts, self.time_left.seconds_from(algorithm.version))
        self.records.groups(algorithm.sample, algorithm.credit, step)
        example = most_changed(rollouts)
        example_row = None if example is None else example.to_dict()
        self.progress = self.progress.stepped(algorithm.version, algorithm.clipped, example_row)
        if evaluation:
            self.progress = self.progress.evaluated(algorithm.version, evaluation)

    def _checkpoint(self, algorithm: CalibAdvAlgorithm, best: Best | None = None) -> bool:
        progress = replace(
            self.progress,
            sentinel=self.sentinel.state(),
            best=best or self.checkpoints.best,
            wall_s=self._wall_s(),
        )
        with self.interruption.deferred():
            before = self.checkpoints.standing()
            saved = self.checkpoints.save(algorithm, progress, self.sentinel.needed)
            if saved:
                self.records.saved(progress, self.checkpoints, before)
            return saved

    def _save_last_step(self, algorithm: CalibAdvAlgorithm, error: BaseException) -> None:
        """A checkpoint of the last step that was made, if the learners still hold it; says where the run goes on."""
        version, checkpoints = algorithm.version, self.checkpoints
        if not checkpoints.settings.every or version == 0 or isinstance(error, Unready):
            return
        between_steps = algorithm.between_steps and not isinstance(error, LearnersLost)
        if between_steps and self.progress.version == version > checkpoints.saved and not self.interruption.forced:
            try:
                self._checkpoint(algorithm)
            except Exception as failure:  # what ended the run may have taken the learners with it
                logger.warning("step %d could not be saved: %s", version, failure)
        if self.starts_again(error):
            return
        if checkpoints.saved == version:
            logger.warning("step %d is saved: the same command with --resume goes on there", version)
        elif checkpoints.saved:
            logger.warning("the same command with --resume goes on from step %d", checkpoints.saved)
        else:
            logger.warning("no checkpoint was written: there is nothing to go on from")

    def _write_after_failure(self, algorithm: CalibAdvAlgorithm) -> None:
        """Model and diagnostics of a run that has failed: nothing here may hide why."""
        folder = self.records.folder
        try:
            if algorithm.version > 0 and not algorithm.learner_group.gone:
                algorithm.save_model(folder.model)
            self.records.diagnostics(self.progress.clipped)
        except Exception as error:
            logger.warning("not everything could be written to %s: %s", folder.path, error)

    def _inspect(self, algorithm: CalibAdvAlgorithm, learned: dict[str, float]) -> None:
        if skipped := learned["learner/skipped_updates"]:
            logger.warning(
                "step %d: %.0f updates had a loss or a gradient that is not finite and were left out: weights and "
                "moments stay as they were",
                algorithm.version + 1,
                skipped,
            )
        metrics = {**learned, **sample_metrics(algorithm.sample, self.inputs.method, algorithm.credit)}
        self.metrics = metrics | self.sentinel.inspect(algorithm, metrics)

    def _evaluate(self, algorithm: CalibAdvAlgorithm, *, look: bool = False) -> tuple[dict[str, float], list[Group]]:
        """Metrics and answers of the current version. `look`: ends early where the first answers show no format."""
        sample = algorithm.evaluate_greedy(LOOK, self._look) if look else algorithm.evaluate_greedy()
        self.time_left.evaluated(len(sample.groups), sample.seconds)
        answers = predictions(sample.groups)
        metrics = evaluation_metrics(answers) | algorithm.logprob_diff(sample.groups[:COMPARED_QUESTIONS])
        self.compared_f1 = evaluation_metrics(answers[: self.config.evaluation.questions])["eval/f1"]
        self.records.answers(answers, algorithm.version)
        return metrics, sample.groups

    def _look(self, sample: StepSample) -> None:
        if not well_formed(sample.groups):
            self.records.answers(predictions(sample.groups), 0)
        self.readiness.look(sample.groups)

    def _remedy(self) -> str:
        folder = self.config.run.folder / self.config.run_name
        return teach(
            ["--config", str(folder / CONFIG)],
            model=self.config.model.path,
            questions=self.inputs.train,
            corpus=self.inputs.corpus,
            out=folder.with_name(f"{folder.name}-warm"),
        )

    def _wall_s(self) -> float:
        earlier_s = self.resumed.wall_s if self.resumed else 0.0
        return earlier_s + time.monotonic() - self.begun_s
