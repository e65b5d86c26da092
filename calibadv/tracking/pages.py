"""`python -m calibadv.tracking.pages [RUNS] [--port N]`: MLflow's pages on a folder of runs, on this machine alone."""

from __future__ import annotations

import argparse
import logging
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from calibadv.tracking.charts import VIEW, first_page
from calibadv.tracking.database import store_uri
from calibadv.tracking.moved_store import ARTIFACTS, DATABASE, correct_artifact_roots

HOST, PORT = "127.0.0.1", 5000
BASE = f"http://{HOST}:{PORT}"


def run_page(base: str, experiment_id: str, run_id: str) -> str:
    """The address of a run's own page on the server at `base`."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def newest_page(database: Path, base: str) -> str | None:
    """The address of the experiment in which a run last began; None without any, and in a database of another shape."""
    newest = "SELECT experiment_id FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT 1"
    views = "SELECT count(*) FROM experiment_tags WHERE experiment_id = ? AND key = ?"
    with closing(sqlite3.connect(database)) as connection, suppress(sqlite3.Error):
        found = connection.execute(newest).fetchone()
        if found is not None:
            (view,) = connection.execute(views, (found[0], VIEW)).fetchone()
            return first_page(base, str(found[0]), view=bool(view))
    return None


def ui_command(runs: Path, port: int) -> list[str]:
    """The command that serves the pages of a folder of runs. ValueError, with the remedy, if it holds none."""
    database = runs / DATABASE
    if not database.is_file():
        raise ValueError(f"{runs} holds no {DATABASE}: train first (make train), or name the folder with RUNS=FOLDER")
    correct_artifact_roots(database)
    artifacts = (runs.resolve() / ARTIFACTS).as_uri()
    where = ["--backend-store-uri", store_uri(runs), "--default-artifact-root", artifacts]
    # One process: the default, four, takes a minute to start on a busy laptop, and there is one reader.
    return [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1", *where]


def main(arguments: Sequence[str] | None = None) -> int:
    """Becomes the server; 2 where there is nothing to serve."""
    parser = argparse.ArgumentParser(prog="python -m calibadv.tracking.pages", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"), help="a folder of runs (default: runs)")
    parser.add_argument("--port", type=int, default=PORT)
    known = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log = logging.getLogger(__name__)
    try:
        command = ui_command(known.runs, known.port)
    except (ValueError, RuntimeError) as error:
        log.error("error: %s", error)
        return 2
    page = newest_page(known.runs / DATABASE, f"http://{HOST}:{known.port}")
    if page is not None:
        log.info("all runs, drawn: %s", page)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.execv(command[0], command)
    return 0  # never: this process is the server


if __name__ == "__main__":
    raise SystemExit(main())
