"""What a run writes down of itself: in its folder, its MLflow run and the terminal alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibadv.checkpoints.progress import Progress
from calibadv.cluster.factories import make_dialogue
from calibadv.config import Config, to_toml
from calibadv.evaluation.models import CONFIGURATION
from calibadv.evaluation.prediction import Prediction, read_predictions
from calibadv.files import write_text
from calibadv.json_lines import read_json_lines
from calibadv.methods.reasons import turn_means
from calibadv.report.write import write_run_report
from calibadv.rllib.env_runner import StepSample
from calibadv.tracking.clipped_table import write_clipped_table
from calibadv.tracking.groups import StoredStep, write_groups
from calibadv.tracking.provenance import command_line, note
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.run_files import CLIPPED_TOKENS, GROUPS, MODEL, PLOTS, RESTARTS
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.series import History
from calibadv.tracking.tracker import Tracker
from calibadv.training.card import CARD, model_card
from calibadv.training.checkpoints import Checkpoints
from calibadv.training.inputs import Inputs
from calibadv.training.summary import before_and_after, final_metrics, next_steps, run_summary, title, view_summary
from calibadv.types import Credit
from calibadv.views.summary import RunSummary, TerminalView

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Records:
    """One run's record. `overview` and `plots` draw its figures as it goes and at the end, `report` writes its page."""

    config: Config
    inputs: Inputs
    folder: RunFolder
    tracker: Tracker
    view: TerminalView
    overview_of: Callable[[History, Path], Path | None]
    plots: Callable[[History, Path], list[Path]]
    report: Callable[[Path], Path] = write_run_report

    def step(
        self, version: int, metrics: Mapping[str, float], rollouts: Sequence[RolloutRecord], left_s: float | None
    ) -> None:
        """The step that led to `version`, and its evaluation if it had one; `left_s`: seconds that the run still has.

        MLflow reads the step's metrics and rollouts from the folder.
        """
        self.folder.append_metrics(version, metrics)
        self.view.step({"step": float(version), **metrics}, left_s)
        self.folder.append_rollouts(rollouts)

    def groups(self, sample: StepSample, credit: Mapping[str, Credit], step: int) -> None:
        """What `calibadv explain` reads: the step's groups whole, those that `tracking.store_groups` asks for."""
        tracking, method = self.config.tracking, self.config.method
        chosen = {"none": [], "sampled": sample.sampled, "all": range(len(sample.groups))}[tracking.store_groups]
        groups = tuple(sample.groups[index] for index in chosen)
        if groups:
            trained = tuple(turn_means(credit[group.question.id], group) for group in groups)
            found = frozenset().union(*(group.doc_ids for group in groups))
            documents = {id_: document for id_, document in sample.documents.items() if id_ in found}
            stored = StoredStep(step, method.name, method.params, groups, trained, documents)
            write_groups(self.folder.path / GROUPS, stored, limit_mb=tracking.groups_mb)

    def answers(self, answers: Sequence[Prediction], version: int) -> None:
        """The newest evaluation's answers, in place of an earlier one's; those of version 0 are kept beside."""
        self.folder.write_predictions((answer.to_dict() for answer in answers), first=version == 0)

    def overview(self, version: int) -> None:
        """The figure of six panels as it is at `version`, on the run's page."""
        try:
            plot = self.overview_of(self.folder.history(), self.folder.path / PLOTS)
        except OSError as error:  # a full disk
            logger.warning("the overview of step %d could not be drawn: %s", version, error)
            return
        if plot is not None:
            self.tracker.log_image_metric(plot, "overview", version)

    def saved(self, progress: Progress, checkpoints: Checkpoints, before: Mapping[int, str]) -> None:
        """The newest version has a checkpoint: MLflow has it as a model, if it was evaluated, with what it is kept as.

        `before`: what the checkpoints were kept as until now; what that changed of earlier models is said too.
        """
        now = checkpoints.standing()
        for version in sorted({*before, *now} & progress.evaluations.keys()):
            tags = {"checkpoint": now.get(version, "removed")}
            if version == progress.version:
                self._version(progress, {**tags, "policy": checkpoints.policy(version)})
            elif before.get(version, "removed") != tags["checkpoint"]:
                self.tracker.log_version_tags(version, tags)

    def diagnostics(self, clipped: Mapping[int, int]) -> None:
        """All figures, and the table of the tokens that the clip acted on (token id -> how often)."""
        for plot in self.plots(self.folder.history(), self.folder.path / PLOTS):
            self.tracker.log_artifact(plot, PLOTS)
        tokenizer = make_dialogue(self.config, self.inputs.method, str(self.inputs.model)).tokenizer
        file = self.folder.path / CLIPPED_TOKENS
        self.tracker.log_artifact(write_clipped_table(file, clipped, lambda token: str(tokenizer.decode([token]))))

    def finished(self, progress: Progress, wall_s: float) -> RunSummary:
        """The end of a run that has made all its steps; its summary as the terminal shows it."""
        summary = run_summary(
            self.config,
            self.folder.history(),
            progress.evaluations,
            wall_s=wall_s,
            mlflow_run=self.tracker.run_id,
            restarts=len(read_json_lines(self.folder.path / RESTARTS)),
        )
        self.folder.write_summary(summary)
        self.tracker.log_metrics(self.config.run.steps, final_metrics(summary))
        example = None if progress.example is None else RolloutRecord.from_dict(progress.example)
        card = self._card(summary, example)
        self.tracker.log_artifact(self.folder.model, MODEL)
        files = [self.folder.model / CARD, self.folder.model / CONFIGURATION]
        self._version(progress, {"final": "true"}, files)
        if self.config.tracking.register_as:
            self.tracker.register(self.config.tracking.register_as, card)
        self.tracker.log_artifact(self.folder.summary)
        self.tracker.log_artifact(self.folder.predictions)
        self.tracker.log_note(note(title(self.config), *before_and_after(summary), command_line(self.folder.path)))
        self._page()
        runs, mlflow = self.folder.path.parent, self.tracker
        what_next = next_steps(runs, mlflow.uri, mlflow.experiment_id, mlflow.run_id)
        return view_summary(summary, self.folder.path, example, what_next)

    def _version(self, progress: Progress, tags: Mapping[str, str], files: Sequence[Path] = ()) -> None:
        figures = progress.evaluations[progress.version]
        test = self.inputs.data_sets.get("test")
        self.tracker.log_version(progress.version, figures, tags, data=test, files=files)

    def _card(self, summary: Mapping[str, Any], example: RolloutRecord | None) -> str:
        """The model's README, written into its folder with the run's configuration."""
        answers = list(read_predictions(self.folder.predictions).values())
        card = model_card(self.config, summary, self.inputs.digests, answers, example)
        write_text(self.folder.model / CARD, card)
        write_text(self.folder.model / CONFIGURATION, to_toml(self.config))
        return card

    def _page(self) -> None:
        """report.html. It is made of what is written by now: that it cannot be made takes nothing from the run."""
        if not self.config.tracking.report:
            return
        try:
            self.tracker.log_artifact(self.report(self.folder.path))
        except Exception as error:  # a method of the user's is called on stored groups
            logger.warning(
                "report.html could not be written (%s): calibadv report %s tries again", error, self.folder.path
            )
