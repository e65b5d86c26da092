"""Delivery that a resumed run may repeat: a step's metrics and a rollout's trace stand in MLflow once.

A killed run is resumed some steps before where it died: those steps are made, and logged, again.
"""

from __future__ import annotations

import uuid

from calibadv.tracking.mlflow_store import MlflowStore
from calibadv.tracking.outbox import Operation


class OnceOnly:
    """Delivers to a store what it does not have yet.

    MLflow keeps every value of a metric that it is sent, so that a step that it has is left out; the first attempt's
    values stay. A trace is overwritten by a later one of its id: the id is made of the run and the rollout.
    """

    def __init__(self, store: MlflowStore, *, look: bool) -> None:
        """`look`: ask the store which steps it has. Without it every step is taken for a new one."""
        self._store = store
        self._look = look
        self._there: dict[str, set[int]] = {}  # metric -> steps that the store had before this attempt

    def deliver(self, operation: Operation) -> None:
        """Carries out one operation. Raises what `MlflowStore.deliver` raises."""
        run_id = self._store.target.run_id
        if operation["op"] == "trace" and run_id is not None:
            record = operation["record"]
            name = f"{run_id} {record['step']} {record['question_id']} {record['index']}"
            operation = {**operation, "id": uuid.uuid5(uuid.NAMESPACE_OID, name).hex}
        if operation["op"] == "metrics" and self._look and run_id is not None and self._has(run_id, operation):
            return
        self._store.deliver(operation)

    def _has(self, run_id: str, operation: Operation) -> bool:
        metric = min(operation["values"])  # a step's metrics arrive in one request: one of them tells
        if metric not in self._there:
            self._there[metric] = self._steps(run_id, metric)
        return operation["step"] in self._there[metric]

    def _steps(self, run_id: str, metric: str) -> set[int]:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            history = MlflowClient(self._store.uri).get_metric_history(run_id, metric)
        except MlflowException as error:
            raise RuntimeError(f"MLflow at {self._store.uri} does not say which steps it has: {error}") from error
        return {value.step for value in history}
