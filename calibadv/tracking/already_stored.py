"""What a run has in MLflow already: a step's metrics, a rollout's trace and a figure of a step stand there once.

A killed run is resumed some steps before where it died: those steps are made, and read, again. MLflow keeps every value
of a metric and every image that it is sent; of what it has, the first attempt's stays.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from calibadv.tracking.follower import Operation
from calibadv.tracking.traces import trace_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 500  # traces that MLflow lists in one answer
_IMAGE = re.compile(r"images/(.+?)[%+]step[%+](\d+)[%+]")


class AlreadyStored:
    """Asks the store once for each kind of thing, and only if it can have any."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._steps: dict[str, set[int]] = {}  # metric -> steps that the store had when it was asked
        self._traces: set[str] | None = None  # their ids
        self._images: set[tuple[str, int]] | None = None  # (key, step)

    def has(self, operation: Operation) -> bool:
        """Whether the operation need not be carried out. Raises what MLflow raises."""
        match operation["op"]:
            case "metrics" if operation["values"]:
                metric = min(operation["values"])  # a step's metrics arrive in one request: one of them tells
                if metric not in self._steps:
                    history = self._client.get_metric_history(self._run_id, metric)
                    self._steps[metric] = {value.step for value in history}
                return operation["step"] in self._steps[metric]
            case "trace":
                if self._traces is None:
                    self._traces = self._traces_of_run()
                return trace_id(self._run_id, operation["record"]) in self._traces
            case "image":
                if self._images is None:
                    found = (_IMAGE.match(file.path) for file in self._client.list_artifacts(self._run_id, "images"))
                    self._images = {(match[1], int(match[2])) for match in found if match}
                return (operation["key"], operation["step"]) in self._images
            case "register":
                return bool(self._client.search_model_versions(f"run_id = '{self._run_id}'"))
            case _:
                return False  # done twice, it is the same

    def _traces_of_run(self) -> set[str]:
        experiment = self._client.get_run(self._run_id).info.experiment_id
        ids: set[str] = set()
        token: str | None = None
        while True:
            page = self._client.search_traces(
                locations=[experiment], run_id=self._run_id, include_spans=False, max_results=_PAGE, page_token=token
            )
            ids |= {trace.info.trace_id for trace in page}
            token = page.token
            if not token:
                return ids
