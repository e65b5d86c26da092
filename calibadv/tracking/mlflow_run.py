"""A training run in MLflow: parameters, metrics, artifacts and rollout traces, without ever holding training up."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from calibadv.tracking.mlflow_once import OnceOnly
from calibadv.tracking.mlflow_store import MlflowStore, Target
from calibadv.tracking.outbox import Operation, Outbox
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.system_metrics import EVERY_S, SystemMetrics
from calibadv.tracking.traces import trace_operation

log = logging.getLogger(__name__)

SPOOL = "mlflow_spool.jsonl"
_MAX_KEY, _MAX_PARAM, _MAX_TAG = 250, 6000, 5000  # characters, MLflow's limits


class RunStatus(StrEnum):
    """How a run ended, in MLflow's words."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class MlflowRun:
    """One run. Every method returns at once and none raises for what MLflow does; failures wait in the spool.

    `uri` None: SQLite in `mlflow.db` beside the run folder. A folder that was tracked before goes on with its own run;
    `run_id` (of a checkpoint) names one explicitly. `resumed`: steps may come that the store has already.
    """

    def __init__(
        self,
        folder: Path,
        *,
        experiment: str = "calibadv",
        run_name: str | None = None,
        uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        resumed: bool = False,
        first_pause_s: float = 5.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        short_tags = {_key(name): str(value)[:_MAX_TAG] for name, value in (tags or {}).items()}
        fresh = Target(experiment, run_name or folder.resolve().name, uri, short_tags, run_id)
        target = replace(fresh, run_id=run_id or _earlier_run_id(folder, fresh))
        target.write(folder)
        self._store = MlflowStore(folder, target)
        deliver = OnceOnly(self._store, look=resumed).deliver
        self._outbox = Outbox(deliver, folder / SPOOL, first_pause_s=first_pause_s)
        self._closed = False
        self._system: SystemMetrics | None = None
        self._put("start")

    @property
    def run_id(self) -> str | None:
        """The run's id; None as long as the store has not answered."""
        return self._store.target.run_id

    @property
    def uri(self) -> str:
        """The tracking URI in use."""
        return self._store.uri

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id; None as long as the store has not answered."""
        return self._store.target.experiment_id

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the store answered within `timeout_s`."""
        return self._store.connected.wait(timeout_s)

    def log_params(self, config: Mapping[str, Any]) -> None:
        """Log a (nested) configuration under dotted names, long values cut to MLflow's limit."""
        self._put("params", values={_key(k): v[:_MAX_PARAM] for k, v in flatten(config).items()})

    def log_system_metrics(self, every_s: float = EVERY_S) -> None:
        """From now until the run's end, the load of this machine."""

        def put(values: Mapping[str, float]) -> None:
            self._put("system", values=dict(values))

        self._system = SystemMetrics(put, self._store.connected, every_s=every_s)

    def log_note(self, note: str) -> None:
        """Set the run's description, in Markdown."""
        self.log_tags({"mlflow.note.content": note})

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._put("tags", values={_key(name): str(value)[:_MAX_TAG] for name, value in tags.items()})

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one step's metrics in one request; what is not finite is left out."""
        values = {name: float(v) for name, v in metrics.items() if name != "step" and math.isfinite(v)}
        if values:
            self._put("metrics", step=step, values=values)

    def log_artifact(self, path: Path, to: str | None = None) -> None:
        """Log a file or a folder under the artifact folder `to`; it is read later, so leave it where it is."""
        self._put("artifact", path=self._relative(path), to=to)

    def log_image(self, path: Path) -> None:
        """Log a figure's file among the run's plots."""
        self.log_artifact(path, "plots")

    def log_image_metric(self, path: Path, key: str, step: int) -> None:
        """Log a figure as it is at a step: the run's page shows it among the charts, with a slider over the steps."""
        self._put("image", path=self._relative(path), key=key, step=step)

    def log_model_folder(self, path: Path) -> None:
        """Log a folder that `from_pretrained` opens as the run's model."""
        self.log_artifact(path, "model")

    def log_traces(self, records: Iterable[RolloutRecord]) -> None:
        """Log rollouts as traces linked to this run."""
        for record in records:
            self._outbox.put(trace_operation(record))

    def log_again(self, metrics: Iterable[Mapping[str, Any]], records: Iterable[Mapping[str, Any]]) -> None:
        """Log a resumed run's record, lines of metrics.jsonl and rollouts.jsonl: what a killed process still had to
        deliver arrives, and what MLflow has is left out."""
        for line in metrics:
            self.log_metrics(int(line["step"]), line)
        self.log_traces(RolloutRecord.from_dict(record) for record in records)

    def close(self, status: RunStatus = RunStatus.FINISHED, timeout_s: float = 60.0) -> int:
        """End the run, waiting at most `timeout_s`; the number of operations that stay in the spool."""
        if self._closed:
            return 0
        self._closed = True
        if self._system is not None:
            self._system.close()
        self._put("end", status=str(status))
        left = self._outbox.close(timeout_s)
        if left:
            log.warning(
                "%d MLflow operations could not be delivered to %s; deliver them later with: "
                "python -m calibadv.tracking.replay %s",
                left,
                self.uri,
                shlex.quote(str(self._store.folder)),
            )
        return left

    def __enter__(self) -> MlflowRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.close(RunStatus.KILLED if issubclass(kind, KeyboardInterrupt) else RunStatus.FAILED)

    def _put(self, op: str, **fields: Any) -> None:
        operation: Operation = {"op": op, "time_ms": time.time_ns() // 1_000_000, **fields}
        self._outbox.put(operation)

    def _relative(self, path: Path) -> str:
        """The path as seen from the run folder, so that a spool outlives a move of that folder."""
        path = path.resolve()
        return str(path.relative_to(self._store.folder) if path.is_relative_to(self._store.folder) else path)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as dotted names and text; an empty mapping stays visible as '{}'."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def _earlier_run_id(folder: Path, target: Target) -> str | None:
    earlier = Target.read(folder)
    return earlier.run_id if earlier and (earlier.uri, earlier.experiment) == (target.uri, target.experiment) else None


def _key(name: str) -> str:
    return name[:_MAX_KEY]
