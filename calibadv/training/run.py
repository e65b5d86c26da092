"""One training run from first evaluation to summary: the loop around the algorithm, and everything it writes down."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from calibadv.checkpoints.progress import Best, Progress
from calibadv.cluster.factories import make_dialogue
from calibadv.config import Config
from calibadv.diagnostics import ClippedTokens
from calibadv.json_lines import read_json_lines
from calibadv.methods import Method
from calibadv.plots.run import write_overview, write_plots
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.env_runner import StepSample
from calibadv.rllib.learner_group import LearnersLost
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.rllib.schedule import evaluation_versions
from calibadv.tracking.clipped_table import write_clipped_table
from calibadv.tracking.mlflow_run import Tracker
from calibadv.tracking.provenance import command_line, note
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.time_left import TimeLeft
from calibadv.training.checkpoints import Checkpoints
from calibadv.training.inputs import Inputs
from calibadv.training.metrics import (
    evaluation_metrics,
    most_telling,
    predictions,
    sample_metrics,
    sampled_records,
    time_metrics,
)
from calibadv.training.readiness import LOOK, Readiness, Unready, teach, well_formed
from calibadv.training.sentinel import Sentinel
from calibadv.training.signals import Interruption
from calibadv.training.summary import before_and_after, final_metrics, next_steps, run_summary, title, view_summary
from calibadv.types import Group
from calibadv.views.summary import RunSummary, TerminalView

logger = logging.getLogger(__name__)

Started = Callable[[Config, Inputs, TerminalView], AbstractContextManager[CalibAdvAlgorithm]]
"""What starts all that a run needs, and stops it on the way out: a ready algorithm on a running cluster."""

COMPARED_QUESTIONS = 32  # of an evaluation, engine against learner: after the last update no step does that


@dataclass
class TrainingRun:
    """Trains, evaluates before and after, and reports to the run folder, MLflow and the terminal alike."""

    config: Config
    inputs: Inputs
    folder: RunFolder
    mlflow: Tracker
    view: TerminalView
    checkpoints: Checkpoints
    started: Started
    interruption: Interruption = field(default_factory=Interruption)
    resumed: Progress | None = None  # how far the run was that goes on
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)  # version -> eval metrics
    clipped: Counter[int] = field(default_factory=Counter)  # token id -> how often the clip acted on it
    inspected: dict[str, float] = field(default_factory=dict)  # metrics of the last step
    telling: RolloutRecord | None = None  # a rollout worth showing at the end
    begun_s: float = field(default_factory=time.time)
    earlier_s: float = 0.0  # wall seconds of earlier attempts, up to their checkpoint
    starts_again: Callable[[BaseException], bool] = lambda _: False  # whether that error is followed by a restart

    def __post_init__(self) -> None:
        self.method: Method = self.inputs.method
        self.sentinel = Sentinel(self.config.sentinel, self.checkpoints.snapshots)
        self.readiness = Readiness(self.config.sentinel, self._remedy)
        self.booked = 0  # version up to which every step is written down
        self.compared_f1 = 0.0  # of the last evaluation, on the questions that every evaluation asks
        steps, between = self.config.run.steps, self.config.evaluation.questions
        asked = {v: None if v in (0, steps) else between for v in evaluation_versions(self.config)}
        self.time_left = TimeLeft(steps, asked)
        if (resumed := self.resumed) is not None:
            self.evaluations = {version: dict(metrics) for version, metrics in resumed.evaluations.items()}
            self.clipped = Counter(resumed.clipped)
            self.telling = None if resumed.telling is None else RolloutRecord.from_dict(resumed.telling)
            self.earlier_s, self.booked = resumed.wall_s, resumed.version
            self.sentinel.restore(resumed.sentinel)

    def execute(self) -> RunSummary:
        """The whole run. Whatever ends it early, what was learned up to then is saved first.

        Raises `CheckpointFailed` at the end, with all else written, if the last checkpoint could not be.
        """
        with self.started(self.config, self.inputs, self.view) as algorithm:
            try:
                self._train(algorithm)
            except BaseException as error:
                # A lost learner shows itself as many an error, e.g. where engines fetch weights that it owned.
                lost = algorithm.learner_group.lost() if isinstance(error, Exception) else None
                self._save_last_step(algorithm, lost or error)
                self._leave_what_there_is(algorithm)
                if lost is not None and lost is not error:
                    raise lost from error
                raise
            algorithm.save_model(self.folder.model)
            self._write_diagnostics()
        summary = run_summary(
            self.config,
            self.folder.history(),
            self.evaluations,
            wall_s=self._wall_s(),
            mlflow_run=self.mlflow.run_id,
            restarts=len(read_json_lines(self.folder.restarts)),
        )
        self.folder.write_summary(summary)
        self.mlflow.log_metrics(self.config.run.steps, final_metrics(summary))
        self.mlflow.log_artifact(self.folder.model, "model")
        self.mlflow.log_artifact(self.folder.summary)
        self.mlflow.log_artifact(self.folder.predictions)
        self.mlflow.log_note(note(title(self.config), *before_and_after(summary), command_line(self.folder.path)))
        if self.checkpoints.failure:
            raise CheckpointFailed(
                f"the run has finished and its model is in {self.folder.model}, but {self.checkpoints.failure}"
            )
        hints = next_steps(self.folder.path.parent, self.mlflow.uri, self.mlflow.experiment_id, self.mlflow.run_id)
        return view_summary(summary, self.folder.path, self.telling, hints)

    def _train(self, algorithm: CalibAdvAlgorithm) -> None:
        algorithm.inspect = lambda learned: self._inspect(algorithm, learned)
        algorithm.hold = self.interruption.held
        evaluated = set(evaluation_versions(self.config))
        if algorithm.version in evaluated - set(self.evaluations):
            self._first_evaluation(algorithm)
        self.sentinel.begin(algorithm)
        while algorithm.version < self.config.run.steps:
            self._step(algorithm, evaluated)

    def _first_evaluation(self, algorithm: CalibAdvAlgorithm) -> None:
        """Before training, or of the version at which a run was interrupted while it was evaluated."""
        self.view.stage("First evaluation", "the engines' start, then greedy answers to the test questions")
        begins = algorithm.version == 0
        metrics, groups = self._evaluate(algorithm, look=begins)
        self.view.stage_done(f"F1 {metrics['eval/f1']:.3f}")
        with self.interruption.held():
            self.folder.append_metrics(algorithm.version, metrics)
            self.evaluations[algorithm.version] = metrics
            if algorithm.version > 0 and self.checkpoints.settings.every:
                self._checkpoint(algorithm, self.checkpoints.improved(algorithm.version, self.compared_f1))
        if begins:
            self.readiness.evaluated(groups)

    def _step(self, algorithm: CalibAdvAlgorithm, evaluated: set[int]) -> None:
        start, step = time.monotonic(), algorithm.version
        evaluation: dict[str, float] = {}
        algorithm.seconds.clear()
        try:
            algorithm.train()
            if algorithm.version in evaluated:
                evaluation, _ = self._evaluate(algorithm)
        finally:
            if algorithm.version > step:  # learned, whatever may have ended the evaluation
                with self.interruption.held():
                    self._book(algorithm, step, evaluation, start)
        if step == 0:
            self.readiness.stepped(self.inspected, algorithm.sample.groups)
        if evaluation:
            self._show_overview(algorithm.version)
        best = self.checkpoints.improved(algorithm.version, self.compared_f1) if evaluation else None
        last = algorithm.version == self.config.run.steps
        if best is not None or self.checkpoints.due(algorithm.version, last=last):
            self._checkpoint(algorithm, best)

    def _book(self, algorithm: CalibAdvAlgorithm, step: int, evaluation: dict[str, float], start: float) -> None:
        """Writes down a step that was made: all of it, before anything may interrupt."""
        metrics = self.inspected | evaluation | {"rollout/questions": float(len(algorithm.sample.groups))}
        metrics |= time_metrics(algorithm.seconds, time.monotonic() - start, metrics["rollout/tokens_sampled"])
        records = sampled_records(algorithm.sample, self.method, algorithm.credit, step)
        self.folder.append_metrics(algorithm.version, metrics)
        self.time_left.stepped(metrics["time/step_s"] - metrics["time/eval_s"])
        self.view.step({"step": float(algorithm.version), **metrics}, self.time_left.after(algorithm.version))
        self.folder.append_rollouts(records)
        self.clipped.update(algorithm.clipped)
        self.telling = most_telling(records) or self.telling
        if evaluation:
            self.evaluations[algorithm.version] = evaluation
        self.booked = algorithm.version

    def _checkpoint(self, algorithm: CalibAdvAlgorithm, best: Best | None = None) -> bool:
        progress = Progress(
            version=algorithm.version,
            evaluations=self.evaluations,
            clipped=self.clipped,
            sentinel=self.sentinel.state(),
            telling=None if self.telling is None else self.telling.to_dict(),
            best=best or self.checkpoints.best,
            wall_s=self._wall_s(),
        )
        with self.interruption.held():
            return self.checkpoints.save(algorithm, progress, self.sentinel.needed)

    def _save_last_step(self, algorithm: CalibAdvAlgorithm, error: BaseException) -> None:
        """A checkpoint of the last step that was made, if the learners still hold it; says where the run goes on."""
        version, checkpoints = algorithm.version, self.checkpoints
        if not checkpoints.settings.every or version == 0 or isinstance(error, Unready):
            return
        held = algorithm.whole and not isinstance(error, LearnersLost)
        if held and self.booked == version > checkpoints.saved and not self.interruption.forced:
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

    def _leave_what_there_is(self, algorithm: CalibAdvAlgorithm) -> None:
        """Model and diagnostics of a run that has failed: nothing here may hide why."""
        try:
            if algorithm.version > 0 and algorithm.learner_group.lost() is None:
                algorithm.save_model(self.folder.model)
            self._write_diagnostics()
        except Exception as error:
            logger.warning("not everything could be written to %s: %s", self.folder.path, error)

    def _inspect(self, algorithm: CalibAdvAlgorithm, learned: dict[str, float]) -> None:
        if skipped := learned["learner/skipped_updates"]:
            logger.warning(
                "step %d: %.0f updates had a loss or a gradient that is not finite and were left out: weights and "
                "moments stay as they were",
                algorithm.version + 1,
                skipped,
            )
        metrics = {**learned, **sample_metrics(algorithm.sample, self.method, algorithm.credit)}
        self.inspected = metrics | self.sentinel.inspect(algorithm, metrics)

    def _evaluate(self, algorithm: CalibAdvAlgorithm, *, look: bool = False) -> tuple[dict[str, float], list[Group]]:
        """Metrics and answers of the current version. `look`: ends early where the first answers show no format."""
        sample = algorithm.evaluate_greedy(LOOK, self._look) if look else algorithm.evaluate_greedy()
        self.time_left.evaluated(len(sample.groups), sample.seconds)
        answers = predictions(sample.groups)
        metrics = evaluation_metrics(answers) | algorithm.logprob_diff(sample.groups[:COMPARED_QUESTIONS])
        self.compared_f1 = evaluation_metrics(answers[: self.config.evaluation.questions])["eval/f1"]
        self.folder.write_predictions(answer.to_dict() for answer in answers)
        return metrics, sample.groups

    def _look(self, sample: StepSample) -> None:
        if not well_formed(sample.groups):
            self.folder.write_predictions(answer.to_dict() for answer in predictions(sample.groups))
        self.readiness.look(sample.groups)

    def _remedy(self) -> str:
        folder = self.config.run.folder / self.config.run_name
        return teach(
            ["--config", str(folder / "config.toml")],
            model=self.config.model.path,
            questions=self.inputs.train,
            corpus=self.inputs.corpus,
            out=folder.with_name(f"{folder.name}-warm"),
        )

    def _show_overview(self, version: int) -> None:
        try:
            plot = write_overview(self.folder.history(), self.folder.plots)
        except OSError as error:  # a full disk
            logger.warning("the overview of step %d could not be drawn: %s", version, error)
            return
        self.mlflow.log_image_metric(plot, "overview", version)

    def _write_diagnostics(self) -> None:
        for plot in write_plots(self.folder.history(), self.folder.plots):
            self.mlflow.log_artifact(plot, "plots")
        tokenizer = make_dialogue(self.config, self.method, str(self.inputs.model)).tokenizer
        table = ClippedTokens(self.clipped).table(lambda token: str(tokenizer.decode([token])))
        self.mlflow.log_artifact(write_clipped_table(self.folder.path / "clipped_tokens.csv", table))

    def _wall_s(self) -> float:
        return self.earlier_s + time.time() - self.begun_s
