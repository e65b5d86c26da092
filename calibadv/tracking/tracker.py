"""Where a run is tracked beside its folder: what the trainer asks of MLflow, or of what stands in for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from calibadv.tracking.data_sets import DataSet
from calibadv.types import Question


class Tracker(Protocol):
    """No call waits, and none raises for what the store does."""

    @property
    def run_id(self) -> str | None:
        """The run's id; None as long as the store has not answered."""

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id; None as long as the store has not answered."""

    @property
    def uri(self) -> str:
        """The store's address."""

    def log_params(self, config: Mapping[str, Any]) -> None:
        """Log a (nested) configuration under dotted names, long values cut to MLflow's limit."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""

    def log_note(self, note: str) -> None:
        """Set the run's description, in Markdown."""

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log figures that are not in the folder's metrics.jsonl, each step once; what is not finite is left out."""

    def log_artifact(self, path: Path, to: str | None = None) -> None:
        """Log a file or a folder under the artifact folder `to`; it is read later, so leave it where it is."""

    def register(self, name: str, card: str) -> None:
        """Make the artifact folder `model` the newest version of a registered model, with its card, in Markdown."""

    def log_inputs(self, data: Sequence[DataSet]) -> None:
        """Name the data sets that the run is made from."""

    def log_questions(self, data: DataSet, questions: Sequence[Question]) -> None:
        """Keep the questions that are asked of `data`, the first of them, for people to read."""

    def log_version(
        self,
        step: int,
        metrics: Collection[str],
        tags: Mapping[str, str],
        *,
        data: DataSet | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Log the policy after `step` steps as a model of its own, with the values that `metrics` have at that step.

        `data`: what they were measured on. `files`: artifacts of that model, read later.
        """

    def log_version_tags(self, step: int, tags: Mapping[str, str]) -> None:
        """Set tags of the version after `step` steps."""

    def log_image_metric(self, path: Path, key: str, step: int) -> None:
        """Log a figure as it is at a step: the run's page shows it among the charts, with a slider over the steps."""

    def log_system_metrics(self) -> None:
        """From now until the run's end, the load of this machine."""
