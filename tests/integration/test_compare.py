"""`python workflows/compare.py` whole, on the smoke study: interrupted, gone on with, failing in one cell, and done.

One story, for each start of Ray costs half a minute: what a call leaves behind is what the next one finds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from calibadv.tracking.run_folder import RunFolder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "workflows" / "studies" / "smoke.toml"
TIMEOUT_S = 900
THIRD_CELL = '\n[[cell]]\nname = "blocked"\nmethod = "grpo"\n'


@dataclass(frozen=True)
class Place:
    """A folder of runs, a study's file beside it, and a place for Ray's sockets."""

    base: Path
    ray: Path

    @property
    def study(self) -> Path:
        return self.base / "runs" / "smoke"

    def start(self, *, more_cells: str = "", concurrent: int = 2) -> subprocess.Popen[str]:
        """The command in a process group of its own, as a terminal would start it."""
        text = SMOKE.read_text().replace('"../recipes', f'"{ROOT}/workflows/recipes')
        file = self.base / "study.toml"
        file.write_text(text.replace("concurrent = 2", f"concurrent = {concurrent}") + more_cells)
        places = ["--run.folder", str(self.base / "runs"), "--run.cache", str(self.base / "cache")]
        environment = {"CI": "1", "OMP_NUM_THREADS": "1", "RAY_TMPDIR": str(self.ray), "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(
            [sys.executable, str(ROOT / "workflows" / "compare.py"), str(file), *places],
            cwd=self.base,
            env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A background job inherits an ignored Ctrl-C, and would pass it on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit code and output, once the command has ended by itself."""
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output

    def mlflow_runs(self) -> dict[str, Run]:
        """The newest MLflow run of each name."""
        client = MlflowClient(f"sqlite:///{self.base / 'runs' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("calibadv")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        return {run.info.run_name: run for run in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    # Socket paths are limited to 107 characters: pytest's own temporary folders are too long for Ray.
    ray = Path(tempfile.mkdtemp(prefix="tc", dir="/tmp"))
    yield Place(tmp_path_factory.mktemp("compare"), ray)
    shutil.rmtree(ray, ignore_errors=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.5)


def test_a_study_is_interrupted_gone_on_with_and_finished(place: Place) -> None:
    grpo, calibadv = place.study / "grpo-seed0", place.study / "calibadv-seed0"

    # Ctrl-C when the first cell is done and the second has begun.
    process = place.start(concurrent=1)
    wait_for(calibadv / "metrics.jsonl", process)
    os.killpg(process.pid, signal.SIGINT)
    code, output = place.ended(process)
    assert code == 130, output
    assert "Traceback" not in output
    assert json.loads((grpo / "summary.json").read_text())["steps"] == 5
    assert not (calibadv / "summary.json").exists()
    table = (place.study / "table.md").read_text()
    assert "| grpo | grpo | 1 |" in table
    assert "| calibadv | calibadv | 0 of 1, 1 unfinished |" in table
    runs = place.mlflow_runs()
    parent_id = runs["smoke"].info.run_id
    statuses = {name: run.info.status for name, run in runs.items()}
    assert statuses == {"smoke": "KILLED", "grpo-seed0": "FINISHED", "calibadv-seed0": "KILLED"}

    # Again, with a cell that cannot run, for its folder is being written by another process: this one.
    done_at = (grpo / "summary.json").stat().st_mtime_ns
    with RunFolder(place.study / "blocked-seed0"):
        code, output = place.ended(place.start(more_cells=THIRD_CELL))
    assert code == 1, output
    assert (grpo / "summary.json").stat().st_mtime_ns == done_at
    assert (calibadv / "summary.json").exists()
    table = (place.study / "table.md").read_text()
    assert "| blocked | grpo | 0 of 1, 1 failed |" in table
    assert "- blocked-seed0: `calibadv.tracking.run_folder.RunFolderError: " in table

    # Once more without that cell: nothing is left to run, and Ray is not even started.
    before = {path: path.stat().st_mtime_ns for folder in (grpo, calibadv) for path in folder.rglob("*")}
    code, output = place.ended(place.start())
    assert code == 0, output
    assert "begins" not in output
    assert "Ray" not in output
    assert {path: path.stat().st_mtime_ns for path in before} == before

    for group, figure in (("table", "f1_final"), ("ladder", "ladder"), ("lambda", "sweep"), ("table", "scores")):
        assert (place.study / "plots" / group / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    table = (place.study / "table.md").read_text()
    assert "| grpo | grpo | 1 |" in table
    assert "| calibadv | calibadv | 1 |" in table
    assert not {"failed", "waiting", "unfinished"} & set(table.split())

    runs = place.mlflow_runs()
    assert runs["smoke"].info.run_id == parent_id
    client = MlflowClient(f"sqlite:///{place.base / 'runs' / 'mlflow.db'}")
    assert {"table.md", "table.csv", "plots", "study.toml"} <= {file.path for file in client.list_artifacts(parent_id)}
    for name, folder in (("grpo", grpo), ("calibadv", calibadv)):
        run, summary = runs[f"{name}-seed0"], json.loads((folder / "summary.json").read_text())
        tags = {key: run.data.tags[key] for key in ("mlflow.parentRunId", "method", "cell", "seed", "study")}
        assert tags == {
            "mlflow.parentRunId": parent_id, "method": name, "cell": name, "seed": "0", "study": "smoke",
        }  # fmt: skip
        assert run.info.status == "FINISHED"
        assert run.data.params["method.name"] == name
        assert run.data.metrics["final/f1"] == pytest.approx(summary["f1_after"])
        assert run.data.metrics["final/searches"] == pytest.approx(summary["searches_after"])
