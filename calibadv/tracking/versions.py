"""Versions of a run's policy as MLflow's logged models: each with its step, and its evaluation's figures linked to it.

MLflow gives such a model an id of its own choice: a version is found again by its run and its name, so that what is
delivered twice stands there once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_REFUSED = re.compile(r"""[/:.%"']""")  # in a model's name, by MLflow
_TYPE = "search-agent"


@dataclass(frozen=True, slots=True)
class VersionsOfRun:
    """The logged models of one run."""

    client: MlflowClient
    experiment_id: str
    run_id: str
    run_name: str

    def log(
        self,
        step: int,
        metrics: Iterable[str],
        tags: Mapping[str, str],
        *,
        data: tuple[str, str] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """The version after `step` steps, made or completed. Done twice, it is the same. Raises what MLflow raises.

        `metrics`: names of the run's metrics whose value at this step is the version's too; one that the run lacks
        there is passed over. `data`: (name, digest) of the data set that they were measured on. `files` are its
        artifacts, no weights: those lie in the run's own artifacts and its checkpoints.
        """
        model = self._found(step)
        if model is None:
            model = self.client.create_logged_model(
                self.experiment_id, self._name(step), self.run_id, tags={"step": str(step)}, model_type=_TYPE
            )
        self._name_as_output(model.model_id, step)
        self._link(model.model_id, step, metrics, data)
        for file in files:
            with suppress(FileNotFoundError):  # it was taken away meanwhile
                self.client.log_model_artifact(model.model_id, str(file))
        self.client.set_logged_model_tags(model.model_id, dict(tags))
        self.client.finalize_logged_model(model.model_id, "READY")

    def tag(self, step: int, tags: Mapping[str, str]) -> None:
        """Sets tags of the version after `step` steps; nothing where it was never logged."""
        model = self._found(step)
        if model is not None:
            self.client.set_logged_model_tags(model.model_id, dict(tags))

    def _name(self, step: int) -> str:
        return f"{_REFUSED.sub('-', self.run_name)}-step-{step:06}"

    def _found(self, step: int) -> LoggedModel | None:
        asked = f"source_run_id = '{self.run_id}' AND name = '{self._name(step)}'"
        models = self.client.search_logged_models([self.experiment_id], filter_string=asked)
        return models[0] if models else None

    def _name_as_output(self, model_id: str, step: int) -> None:
        from mlflow.entities import LoggedModelOutput

        outputs = self.client.get_run(self.run_id).outputs
        if outputs is None or model_id not in {output.model_id for output in outputs.model_outputs}:
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model_id, step)])

    def _link(self, model_id: str, step: int, names: Iterable[str], data: tuple[str, str] | None) -> None:
        from mlflow.entities import Metric

        name, digest = data or (None, None)
        # The run's own points, time and all: sent with the model's id, MLflow adds them to the model, not to the run.
        points = (point for known in names for point in self.client.get_metric_history(self.run_id, known))
        linked = [
            Metric(point.key, point.value, point.timestamp, step, model_id, name, digest)
            for point in points
            if point.step == step
        ]
        if linked:
            self.client.log_batch(self.run_id, metrics=linked)
