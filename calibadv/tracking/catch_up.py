"""`python -m calibadv.tracking.catch_up runs/<name>`: deliver to MLflow what it lacks of a run's folder."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from calibadv.tracking.folder_lock import FolderLock
from calibadv.tracking.follower import OPERATIONS, Follower
from calibadv.tracking.journal import Journal
from calibadv.tracking.mlflow_store import MlflowStore
from calibadv.tracking.target import Target

log = logging.getLogger(__name__)


def catch_up(folder: Path, uri: str | None = None, timeout_s: float = 600.0, *, artifact: Path | None = None) -> int:
    """Deliver what the run's store lacks; the number of lines that it still lacks after `timeout_s`.

    `uri`: another store, where the run is made anew, whole; the folder belongs to that one from then on. `artifact`: a
    file of the folder that was written after the run's end, and is to be an artifact of it too. ValueError where the
    folder was never tracked, or a live process writes it.
    """
    target = Target.read(folder)
    if target is None:
        raise ValueError(f"{folder} holds no run that was tracked (mlflow.json is missing): name a folder runs/<name>")
    if uri is not None and uri != target.uri:
        target = Target(target.experiment, target.run_name, uri, target.tags, begun_ms=target.begun_ms)
    lock = FolderLock(folder, "wait for it, it delivers by itself")
    try:
        if artifact is not None:
            name = str(artifact.resolve().relative_to(folder.resolve()))
            operations = Journal(folder / OPERATIONS)
            operations.append([{"op": "artifact", "path": name, "to": None}])
            operations.close()
        return Follower(folder, MlflowStore(folder, target), target.offsets).close(timeout_s)
    finally:
        lock.close()


def main() -> int:
    """Command line; 0 when MLflow has everything, 2 where there is nothing to deliver."""
    parser = argparse.ArgumentParser(prog="python -m calibadv.tracking.catch_up", description=__doc__)
    parser.add_argument("folder", type=Path, help="the run's folder, runs/<name>")
    parser.add_argument("--uri", help="another MLflow store than the run's own")
    parser.add_argument("--timeout-s", type=float, default=600.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        owed = catch_up(arguments.folder, arguments.uri, arguments.timeout_s)
    except ValueError as error:
        parser.error(str(error))
    log.info("MLflow has everything of the run" if owed == 0 else f"MLflow still lacks {owed} lines")
    return int(owed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
