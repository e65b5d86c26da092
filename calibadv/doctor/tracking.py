"""MLflow: whether a run can be written there."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from calibadv.cluster.servers import check_routes
from calibadv.config import Config
from calibadv.doctor.disk import nearest
from calibadv.doctor.finding import Finding, failed, passed
from calibadv.doctor.subject import Subject
from calibadv.http_client import without_password
from calibadv.tracking.database import database_path, store_uri

EXPERIMENT, RUN = "calibadv-doctor", "doctor"
NAME = "MLflow"


def tracking(subject: Subject) -> Iterator[Finding]:
    """Writes a run with a metric and a file as training does, and removes it; a database yet to be made is left so."""
    uri = uri_of(subject.config)
    database = database_path(uri)
    if database is not None and not database.exists():
        yield folder_writable(database)
        return
    check_routes(subject.config)
    yield written(uri)


def uri_of(config: Config) -> str:
    """Where the run will be tracked: the given store, or the database beside the runs."""
    return config.tracking.mlflow_uri or store_uri(config.run.folder)


def folder_writable(database: Path) -> Finding:
    """Whether the database can be made."""
    folder = nearest(database.parent)
    if os.access(folder, os.W_OK):
        return passed(NAME, f"{database} will be made by the run")
    return failed(NAME, f"{database} cannot be made: {folder} is not yours to write", "choose another run.folder")


def written(uri: str) -> Finding:
    """Whether the store takes a run, a metric and a file."""
    from mlflow import MlflowClient

    from calibadv.tracking.mlflow_store import MlflowStore, Target

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "doctor.txt").write_text("written by workflows/doctor.py\n", encoding="utf-8")
        store = MlflowStore(Path(folder), Target(EXPERIMENT, RUN, uri))
        now_ms = time.time_ns() // 1_000_000
        try:
            store.deliver({"op": "metrics", "time_ms": now_ms, "step": 0, "values": {"doctor/written": 1.0}})
            # A file of every examination would stay beside a local database for ever; the disk is another check's.
            if database_path(uri) is None:
                store.deliver({"op": "artifact", "time_ms": now_ms, "path": "doctor.txt", "to": None})
            store.deliver({"op": "end", "time_ms": now_ms, "status": "FINISHED"})
            assert store.target.run_id is not None
            MlflowClient(uri).delete_run(store.target.run_id)
        except Exception as error:  # whatever a store may answer with
            remedy = "start the server, mend tracking.mlflow_uri, or leave it out to write beside the runs"
            return failed(NAME, " ".join(str(error).replace(uri, without_password(uri)).split())[:300], remedy)
    return passed(NAME, f"a run can be written to {without_password(uri)}")
