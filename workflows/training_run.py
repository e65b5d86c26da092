"""One training run from first evaluation to summary: the loop around the algorithm, and everything it writes down."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from calibadv.cluster.factories import make_dialogue
from calibadv.config import Config
from calibadv.diagnostics import ClippedTokens, benchmark_f1
from calibadv.methods import Method, make_method
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.schedule import evaluation_versions
from calibadv.rllib.stream import Inputs
from calibadv.tracking.clipped_table import write_clipped_table
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.plots import write_plots
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.series import collapse_point
from calibadv.tracking.view import TIME_PARTS, RunSummary, TerminalView
from workflows.report import (
    evaluation_metrics,
    most_telling,
    predictions,
    sample_metrics,
    sampled_records,
    time_metrics,
)
from workflows.sentinel import Sentinel
from workflows.session import started

logger = logging.getLogger(__name__)

COMPARED_QUESTIONS = 32  # of an evaluation, engine against learner: after the last update no step does that
LOGPROB_DIFFS = ("sync/logprob_diff_mean", "eval/logprob_diff_mean")


@dataclass
class TrainingRun:
    """Trains, evaluates before and after, and reports to the run folder, MLflow and the terminal alike."""

    config: Config
    inputs: Inputs
    folder: RunFolder
    mlflow: MlflowRun
    view: TerminalView
    search_app: str | None = None  # a running one, else the run starts its own
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)  # version -> eval metrics
    clipped: Counter[int] = field(default_factory=Counter)  # token id -> how often the clip acted on it
    inspected: dict[str, float] = field(default_factory=dict)  # metrics of the last step
    telling: RolloutRecord | None = None  # a rollout worth showing at the end

    def __post_init__(self) -> None:
        self.sentinel = Sentinel(self.config.sentinel, self.folder.path / "snapshots")

    def execute(self, started_s: float) -> RunSummary:
        """The whole run. Whatever ends it early, what was learned up to then is saved first."""
        with started(self.config, self.inputs, self.view, self.search_app) as algorithm:
            try:
                self._train(algorithm)
            finally:
                if algorithm.version > 0:
                    algorithm.save_model(self.folder.model)
                self._write_diagnostics()
        summary = self._summary(time.time() - started_s)
        self.folder.write_summary(summary)
        self.mlflow.log_model_folder(self.folder.model)
        self.mlflow.log_artifact(self.folder.summary)
        self.mlflow.log_artifact(self.folder.predictions)
        return self._run_summary(summary)

    def _train(self, algorithm: CalibAdvAlgorithm) -> None:
        method = make_method(self.config.method.name, self.config.method.params)
        evaluated = set(evaluation_versions(self.config))
        self.view.stage("First evaluation", "the engines' start, then greedy answers to the test questions")
        first = self._evaluate(algorithm)
        self.view.stage_done(f"F1 {first['eval/f1']:.3f}")
        self._report(0, first)
        self.sentinel.begin(algorithm)
        algorithm.inspect = lambda learned: self._inspect(algorithm, method, learned)
        while algorithm.version < self.config.run.steps:
            self._step(algorithm, method, evaluate=algorithm.version + 1 in evaluated)

    def _step(self, algorithm: CalibAdvAlgorithm, method: Method, *, evaluate: bool) -> None:
        start, step = time.monotonic(), algorithm.version
        algorithm.seconds.clear()
        algorithm.train()
        metrics = self.inspected
        records = sampled_records(algorithm.sample, method, algorithm.credit, step)
        if evaluate:
            metrics |= self._evaluate(algorithm)
        metrics |= time_metrics(algorithm.seconds, time.monotonic() - start, metrics["rollout/tokens_sampled"])
        self._report(algorithm.version, metrics)
        self.folder.append_rollouts(records)
        self.mlflow.log_traces(records)
        self.clipped.update(algorithm.clipped)
        self.telling = most_telling(records) or self.telling

    def _inspect(self, algorithm: CalibAdvAlgorithm, method: Method, learned: dict[str, float]) -> None:
        metrics = {**learned, **sample_metrics(algorithm.sample, method, algorithm.credit)}
        self.inspected = metrics | self.sentinel.inspect(algorithm, metrics)

    def _evaluate(self, algorithm: CalibAdvAlgorithm) -> dict[str, float]:
        sample = algorithm.evaluate_greedy()
        metrics = evaluation_metrics(sample.groups) | benchmark_f1(sample.groups)
        metrics |= algorithm.logprob_diff(sample.groups[:COMPARED_QUESTIONS])
        self.evaluations[algorithm.version] = metrics
        self.folder.write_predictions(predictions(sample.groups))
        return metrics

    def _report(self, step: int, metrics: dict[str, float]) -> None:
        self.folder.append_metrics(step, metrics)
        self.mlflow.log_metrics(step, metrics)
        if step > 0:
            self.view.step({"step": float(step), **metrics})

    def _write_diagnostics(self) -> None:
        for plot in write_plots(self.folder.history(), self.folder.plots):
            self.mlflow.log_image(plot)
        tokenizer = make_dialogue(self.config, str(self.inputs.model)).tokenizer
        table = ClippedTokens(self.clipped).table(lambda token: str(tokenizer.decode([token])))
        self.mlflow.log_artifact(write_clipped_table(self.folder.path / "clipped_tokens.csv", table))

    def _summary(self, wall_s: float) -> dict[str, Any]:
        history = [line for line in self.folder.history() if line["step"] > 0]
        before, after = self.evaluations[0], self.evaluations[self.config.run.steps]
        step_s = sum(line["time/step_s"] for line in history)
        diffs = [line[name] for line in history for name in LOGPROB_DIFFS if name in line]
        return {
            "method": self.config.method.name,
            "params": self.config.method.params,
            "seed": self.config.run.seed,
            "steps": self.config.run.steps,
            "f1_before": before["eval/f1"],
            "f1_after": after["eval/f1"],
            "em_before": before["eval/em"],
            "em_after": after["eval/em"],
            "format_before": before["eval/format"],
            "format_after": after["eval/format"],
            "searches_before": before["eval/searches"],
            "searches_after": after["eval/searches"],
            "wall_s": wall_s,
            "time_split": {name: sum(line[f"time/{name}_s"] for line in history) / step_s for name in TIME_PARTS},
            "logprob_diff_mean": fmean(diffs),
            "logprob_diff_worst_step": max(diffs),
            "collapse_step": collapse_point(history),
            "engine_share_max": max(line["rollout/engine_share_max"] for line in history),
            "infra_failed": sum(line["rollout/infra_failed_count"] for line in history),
            "skipped_updates": sum(line["learner/skipped_updates"] for line in history),
            "engine": self.config.rollout.engine,
            "mlflow_run_id": self.mlflow.run_id,
        }

    def _run_summary(self, summary: dict[str, Any]) -> RunSummary:
        def figures(when: str) -> dict[str, float]:
            return {name: summary[f"{name}_{when}"] for name in ("f1", "em", "format", "searches")}

        return RunSummary(
            before=figures("before"),
            after=figures("after"),
            steps=self.config.run.steps,
            seconds=summary["wall_s"],
            folder=self.folder.path,
            rollout=self.telling,
            hints=(f"mlflow ui --backend-store-uri {self.mlflow.uri}",),
        )
