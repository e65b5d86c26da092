"""One MLflow database for all tests here: making its schema is what takes the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.tracking.mlflow_store import MlflowStore
from calibadv.tracking.target import Target


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose mlflow.db exists."""
    root = tmp_path_factory.mktemp("runs")
    (root / "first").mkdir()
    MlflowStore(root / "first", Target("warm-up", "first", begun_ms=1)).deliver({"op": "start", "time_ms": 1})
    return root
