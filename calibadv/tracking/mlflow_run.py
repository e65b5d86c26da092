"""A run in MLflow: what its folder holds, and what is told here, without ever holding training up."""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from calibadv.section import flat
from calibadv.tracking.data_sets import DataSet
from calibadv.tracking.follower import OPERATIONS, Follower
from calibadv.tracking.journal import Journal
from calibadv.tracking.keys import key
from calibadv.tracking.mlflow_store import MlflowStore
from calibadv.tracking.question_sets import question_set
from calibadv.tracking.system_metrics import EVERY_S, SystemMetrics
from calibadv.tracking.target import Target
from calibadv.tracking.tracker import Tracker
from calibadv.types import Question

log = logging.getLogger(__name__)

_MAX_PARAM, _MAX_TAG = 6000, 5000  # characters, MLflow's limits


class RunStatus(StrEnum):
    """How a run ended, in MLflow's words."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class MlflowRun(Tracker):
    """One run, a `Tracker`: metrics.jsonl and rollouts.jsonl of `folder`, and all calls, are mirrored by a thread.

    `uri` None: SQLite in `mlflow.db` beside the run folder. A folder that was tracked before goes on with its own run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        experiment: str = "calibadv",
        run_name: str | None = None,
        uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        first_pause_s: float = 5.0,
        store: Callable[[Path, Target], MlflowStore] = MlflowStore,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Target(experiment, run_name or folder.resolve().name, uri, _tags(tags or {}), begun_ms=_now_ms())
        target = _earlier_target(folder, fresh)
        target.write(folder)
        self._store = store(folder, target)
        self._operations, self._lock = Journal(folder / OPERATIONS), threading.Lock()
        self._closed = False
        self._system: SystemMetrics | None = None
        self._put("start")
        self._follower = Follower(self._store.folder, self._store, target.offsets, first_pause_s=first_pause_s)

    @property
    def run_id(self) -> str | None:
        return self._store.target.run_id

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def experiment_id(self) -> str | None:
        return self._store.target.experiment_id

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the store answered within `timeout_s`."""
        return self._store.connected.wait(timeout_s)

    def log_params(self, config: Mapping[str, Any]) -> None:
        self._put("params", values={key(k): str(v)[:_MAX_PARAM] for k, v in flat(config).items()})

    def log_system_metrics(self, every_s: float = EVERY_S) -> None:
        def put(values: Mapping[str, float]) -> None:
            self._put("system", values=dict(values))

        self._system = SystemMetrics(put, self._store.connected, every_s=every_s)

    def log_note(self, note: str) -> None:
        self.log_tags({"mlflow.note.content": note})

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._put("tags", values=_tags(tags))

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        values = {key(name): float(v) for name, v in metrics.items() if name != "step" and math.isfinite(v)}
        if values:
            self._put("metrics", step=step, values=values)

    def log_artifact(self, path: Path, to: str | None = None) -> None:
        self._put("artifact", path=self._relative(path), to=to)

    def register(self, name: str, card: str) -> None:
        self._put("register", name=name, card=card)

    def log_inputs(self, data: Sequence[DataSet]) -> None:
        self._put("inputs", values=[given.to_dict() for given in data])

    def log_questions(self, data: DataSet, questions: Sequence[Question]) -> None:
        self._put("questions", values=question_set(data, questions))

    def log_version(
        self,
        step: int,
        metrics: Collection[str],
        tags: Mapping[str, str],
        *,
        data: DataSet | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        self._put(
            "version",
            step=step,
            metrics=sorted(map(key, metrics)),
            tags=_tags(tags),
            data=None if data is None else data.known_as,
            files=[self._relative(file) for file in files],
        )

    def log_version_tags(self, step: int, tags: Mapping[str, str]) -> None:
        self._put("version_tags", step=step, tags=_tags(tags))

    def log_image_metric(self, path: Path, key: str, step: int) -> None:
        self._put("image", path=self._relative(path), key=key, step=step)

    def close(self, status: RunStatus = RunStatus.FINISHED, timeout_s: float = 60.0) -> int:
        """End the run; the number of lines of the folder that MLflow still lacks.

        It waits for at most `timeout_s`, and longer by as much as the files that are on their way may take.
        """
        if self._closed:
            return 0
        self._closed = True
        if self._system is not None:
            self._system.close()
        self._put("end", status=str(status))
        owed = self._follower.close(timeout_s)
        self._operations.close()
        if owed:
            log.warning(
                "MLflow at %s lacks %d lines of %s; it catches up by: python -m calibadv.tracking.catch_up %s",
                self.uri,
                owed,
                self._store.folder,
                shlex.quote(str(self._store.folder)),
            )
        return owed

    def __enter__(self) -> MlflowRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.close(RunStatus.KILLED if issubclass(kind, KeyboardInterrupt) else RunStatus.FAILED)

    def _put(self, op: str, **fields: Any) -> None:
        with self._lock:  # the machine's load comes from a thread of its own
            self._operations.append([{"op": op, "time_ms": _now_ms(), **fields}])

    def _relative(self, path: Path) -> str:
        """The path as seen from the run folder, so that it outlives a move of that folder."""
        path = path.resolve()
        return str(path.relative_to(self._store.folder) if path.is_relative_to(self._store.folder) else path)


def _earlier_target(folder: Path, target: Target) -> Target:
    """The target with what the folder knows of its run in the same store."""
    earlier = Target.read(folder)
    if earlier is None or (earlier.uri, earlier.experiment) != (target.uri, target.experiment):
        return target
    return replace(target, run_id=earlier.run_id, begun_ms=earlier.begun_ms, offsets=earlier.offsets)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key(name): str(value)[:_MAX_TAG] for name, value in tags.items()}
