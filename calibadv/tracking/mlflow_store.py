"""Delivers one operation at a time to an MLflow store, and keeps in the run's `Target` what is needed to go on later.

Every function here may raise; `follower.Follower` decides what happens then.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from calibadv.http_client import route_to
from calibadv.sendable import sendable
from calibadv.tracking.already_stored import AlreadyStored
from calibadv.tracking.charts import VIEW, first_charts
from calibadv.tracking.data_sets import log_inputs
from calibadv.tracking.database import database_path, store_uri
from calibadv.tracking.follower import Operation, Rejected
from calibadv.tracking.moved_store import ARTIFACTS, correct_artifact_roots
from calibadv.tracking.provenance import EXPERIMENT_NOTE, NOTE, provenance
from calibadv.tracking.question_sets import log_questions
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.registered import register_version
from calibadv.tracking.target import Target
from calibadv.tracking.traces import write_trace
from calibadv.tracking.versions import VersionsOfRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

_T = TypeVar("_T")

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # would tear the live view
    # A dead server must fail within seconds: the follower, not the HTTP client, does the patient retrying.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
# Without it MLflow takes an experiment with traces for an application and hides the charts that compare runs.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development", NOTE: EXPERIMENT_NOTE, VIEW: first_charts()}
_MAX_METRICS, _MAX_PARAMS = 1000, 100  # of one log_batch request, MLflow's limits


class MlflowStore:
    """One run in an MLflow store; connects on the first delivery, not before."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.folder = folder.resolve()
        self.target = target
        self.uri = target.uri or store_uri(self.folder.parent)
        self.connected = threading.Event()
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._start_ms = 0  # of the run, Unix time
        self._has: AlreadyStored | None = None  # None: nothing of what comes

    def connect(self) -> Mapping[str, int]:
        """Finds or makes the run; how many bytes of each of its folder's files it has."""
        with _plain_errors(self.uri):
            self._connect()
        return self.target.offsets

    def remember(self, offsets: Mapping[str, int]) -> None:
        """Keeps how far the files are delivered. A full disk forgets it: then the store is asked what it has."""
        self.target = replace(self.target, offsets=offsets)
        with suppress(OSError):
            self.target.write(self.folder)

    def deliver(self, operation: Operation) -> None:
        """Carry out one operation unless it was done before. Raises `Rejected` for what would fail for ever."""
        operation = sendable(operation)
        with _plain_errors(self.uri):
            client, run_id = self._connect()
            try:
                if self._has is None or not self._has.has(operation):
                    self._carry_out(client, run_id, operation)
            except Exception as error:
                self._has = AlreadyStored(client, run_id)  # it may have been done for all that
                if _has_no_endpoint(error) and client.get_run(run_id):  # no proxy's answer: MLflow itself is there
                    raise Rejected(f"MLflow at {self.uri} is too old for it: {_first_line(error)}") from error
                raise

    def _carry_out(self, client: MlflowClient, run_id: str, operation: Operation) -> None:
        from mlflow.entities import Metric, Param, RunTag

        match operation["op"]:
            case "start":
                client.update_run(run_id, status="RUNNING")
            case "metrics":
                time_ms, step = operation["time_ms"], operation["step"]
                metrics = [Metric(name, value, time_ms, step) for name, value in operation["values"].items()]
                for batch in _batches(metrics, _MAX_METRICS):
                    client.log_batch(run_id, metrics=batch)
            case "params":
                params = [Param(name, value) for name, value in operation["values"].items()]
                for chunk in _batches(params, _MAX_PARAMS):
                    client.log_batch(run_id, params=chunk)
            case "tags":
                client.log_batch(run_id, tags=[RunTag(name, value) for name, value in operation["values"].items()])
            case "artifact":
                path = self.folder / operation["path"]
                if path.is_dir():
                    client.log_artifacts(run_id, str(path), operation["to"])
                elif path.exists():
                    client.log_artifact(run_id, str(path), operation["to"])
                else:
                    raise Rejected(f"the file {path} no longer exists")
            case "inputs":
                log_inputs(client, run_id, operation["values"])
            case "questions":
                try:
                    log_questions(client, self._experiment_id, operation["values"])
                except NotImplementedError as error:
                    raise Rejected(f"MLflow at {self.uri} keeps no data sets of questions") from error
            case "version":
                data, files = operation["data"], [self.folder / name for name in operation["files"]]
                self._versions(client, run_id).log(
                    operation["step"],
                    operation["metrics"],
                    operation["tags"],
                    data=None if data is None else tuple(data),
                    files=files,
                )
            case "version_tags":
                self._versions(client, run_id).tag(operation["step"], operation["tags"])
            case "register":
                register_version(client, run_id, operation["name"], operation["card"])
            case "system":
                step = max(0, operation["time_ms"] - self._start_ms) // 1000  # seconds since the run began
                metrics = [
                    Metric(name, value, operation["time_ms"], step) for name, value in operation["values"].items()
                ]
                client.log_batch(run_id, metrics=metrics)
            case "image":
                from PIL import Image

                with Image.open(self.folder / operation["path"]) as image:
                    client.log_image(run_id, image.copy(), key=operation["key"], step=operation["step"])
            case "trace":
                record = RolloutRecord.from_dict(operation["record"])
                write_trace(self.uri, self._experiment_id, run_id, record, operation["time_ms"])
            case "end":
                client.set_terminated(run_id, status=operation["status"], end_time=operation["time_ms"])
            case unknown:
                raise Rejected(f"no such operation: {unknown!r}")

    def _versions(self, client: MlflowClient, run_id: str) -> VersionsOfRun:
        return VersionsOfRun(client, self._experiment_id, run_id, self.target.run_name)

    def _connect(self) -> tuple[MlflowClient, str]:
        """The client and the run id; makes experiment and run where they do not exist."""
        if self._client is None:
            for name, value in _DEFAULTS.items():
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient

            _silence_migrations()
            if (database := database_path(self.uri)) is not None:
                correct_artifact_roots(database)
            client = MlflowClient(self.uri)
            self._experiment_id = experiment_id(client, self.target.experiment, self.uri)
            earlier = self._earlier(client)
            if earlier is None:
                run = client.create_run(
                    self._experiment_id,
                    start_time=self.target.begun_ms,
                    run_name=self.target.run_name,
                    tags={**provenance(), **self.target.tags},
                )
                self.target = replace(self.target.made_anew(), run_id=run.info.run_id)
                earlier = run
            else:
                self._has = AlreadyStored(client, earlier.info.run_id)
            self.target = replace(self.target, experiment_id=earlier.info.experiment_id)
            self.target.write(self.folder)
            self._start_ms = int(earlier.info.start_time)
            self._client = client
            self.connected.set()
        assert self.target.run_id is not None
        return self._client, self.target.run_id

    def _earlier(self, client: MlflowClient) -> Any:
        """The run that the target names. None without one, and where the store beside a copied run never had it."""
        from mlflow.exceptions import MlflowException

        if self.target.run_id is None:
            return None
        try:
            return client.get_run(self.target.run_id)
        except MlflowException as error:
            if self.target.uri is None and error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


@contextmanager
def _plain_errors(uri: str) -> Iterator[None]:
    """MLflow's errors as `Rejected` or as one line that names the store."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise Rejected(str(error)) from error
        raise RuntimeError(f"MLflow at {uri}{_route(uri)} does not answer: {_first_line(error)}") from error
    except (FileNotFoundError, UnicodeError) as error:
        raise Rejected(str(error)) from error


def _has_no_endpoint(error: Exception) -> bool:
    return getattr(error, "error_code", "") == "ENDPOINT_NOT_FOUND"


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment of that name, made where there is none. Raises what MLflow raises."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, _artifact_location(uri), tags=_EXPERIMENT_TAGS))
        except MlflowException:
            # Another run may have made it between the two calls.
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    for name in (NOTE, VIEW):
        if name not in experiment.tags:  # of an earlier release; what somebody wrote there stays
            client.set_experiment_tag(experiment.experiment_id, name, _EXPERIMENT_TAGS[name])
    return str(experiment.experiment_id)


def _artifact_location(uri: str) -> str | None:
    """Beside the database for SQLite (MLflow's default is the current folder); the server's own choice otherwise."""
    database = database_path(uri)
    return None if database is None else (database.resolve().parent / ARTIFACTS).as_uri()


def _silence_migrations() -> None:
    """Keep the first use of a database from writing fifty lines of schema migrations over the live view."""
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _batches(values: Sequence[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch


def _route(uri: str) -> str:
    """The proxy between, in words, or "". MLflow's client, requests, reads the environment as `route_to` does."""
    return str(route_to(uri, socks="sys")) if uri.startswith(("http://", "https://")) else ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
