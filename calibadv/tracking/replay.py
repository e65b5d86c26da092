"""`python -m calibadv.tracking.replay runs/<name>`: deliver to MLflow what a run had to leave in its spool."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from calibadv.tracking.mlflow_run import SPOOL
from calibadv.tracking.mlflow_store import MlflowStore, Target
from calibadv.tracking.outbox import Outbox

log = logging.getLogger(__name__)


def replay(folder: Path, uri: str | None = None, timeout_s: float = 600.0) -> int:
    """Deliver the spool of a run folder; the number of operations that are still left.

    `uri` sends them to another store than the run was meant for; the run is then made anew there.
    """
    target = Target.read(folder)
    if target is None:
        raise ValueError(f"{folder} holds no run that was tracked (mlflow.json is missing): name a folder runs/<name>")
    if uri is not None and uri != target.uri:
        target = Target(target.experiment, target.run_name, uri, target.tags)
    return Outbox(MlflowStore(folder, target).deliver, folder / SPOOL).close(timeout_s)


def main() -> int:
    """Command line; 0 when nothing is left in the spool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the run's folder, runs/<name>")
    parser.add_argument("--uri", help="another MLflow store than the run's own")
    parser.add_argument("--timeout-s", type=float, default=600.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        left = replay(arguments.folder, arguments.uri, arguments.timeout_s)
    except ValueError as error:
        parser.error(str(error))
    log.info("nothing is left in the spool" if left == 0 else f"{left} operations are still in the spool")
    return int(left > 0)


if __name__ == "__main__":
    raise SystemExit(main())
