"""Delivery that a resumed run may repeat: a step's metrics and a rollout's trace stand in MLflow once.

A killed run is resumed some steps before where it died: those steps are made, and logged, again. What of the steps
before was still on its way is logged again too.
"""

from __future__ import annotations

import uuid

from calibadv.tracking.mlflow_store import MlflowStore
from calibadv.tracking.outbox import Operation

_PAGE = 500  # traces that MLflow lists in one answer


class OnceOnly:
    """Delivers to a store what it does not have yet; of what it has, the first attempt's stays.

    MLflow keeps every value of a metric that it is sent. A trace's id is made of the run and the rollout.
    """

    def __init__(self, store: MlflowStore, *, look: bool) -> None:
        """`look`: ask the store what it has. Without it everything is taken for new."""
        self._store = store
        self._look = look
        self._steps: dict[str, set[int]] = {}  # metric -> steps that the store had before this attempt
        self._traces: set[str] | None = None  # their ids

    def deliver(self, operation: Operation) -> None:
        """Carries out one operation. Raises what `MlflowStore.deliver` raises."""
        run_id = self._store.target.run_id
        if run_id is not None and operation["op"] == "trace":
            operation = {**operation, "id": _trace_id(run_id, operation)}
        if not (self._look and run_id is not None and self._has(run_id, operation)):
            self._store.deliver(operation)

    def _has(self, run_id: str, operation: Operation) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            match operation["op"]:
                case "metrics":
                    metric = min(operation["values"])  # a step's metrics arrive in one request: one of them tells
                    if metric not in self._steps:
                        self._steps[metric] = self._steps_of(run_id, metric)
                    return operation["step"] in self._steps[metric]
                case "trace":
                    if self._traces is None:
                        self._traces = self._traces_of(run_id)
                    return f"tr-{operation['id']}" in self._traces
                case _:
                    return False
        except MlflowException as error:
            raise RuntimeError(f"MLflow at {self._store.uri} does not say what it has: {error}") from error

    def _steps_of(self, run_id: str, metric: str) -> set[int]:
        from mlflow import MlflowClient

        return {value.step for value in MlflowClient(self._store.uri).get_metric_history(run_id, metric)}

    def _traces_of(self, run_id: str) -> set[str]:
        from mlflow import MlflowClient

        client = MlflowClient(self._store.uri)
        experiment = client.get_run(run_id).info.experiment_id
        ids: set[str] = set()
        token: str | None = None
        while True:
            page = client.search_traces(
                locations=[experiment], run_id=run_id, include_spans=False, max_results=_PAGE, page_token=token
            )
            ids |= {trace.info.trace_id for trace in page}
            token = page.token
            if not token:
                return ids


def _trace_id(run_id: str, operation: Operation) -> str:
    record = operation["record"]
    name = f"{run_id} {record['step']} {record['question_id']} {record['index']}"
    return uuid.uuid5(uuid.NAMESPACE_OID, name).hex
