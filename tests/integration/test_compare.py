"""`python workflows/compare.py` whole, on the smoke study: interrupted, gone on with, failing in one cell, and done.

One story, for a run costs many seconds: what a call leaves behind is what the next one finds. The first is a command,
in a process group of its own; the others are made in this process, on the Ray of `local_ray`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from calibadv.tracking.run_folder import RunFolder
from tests.integration.commands import ROOT, ended, killed_on_error, ray_folder, start, wait_for
from workflows.command import run_command
from workflows.compare import main

pytestmark = pytest.mark.integration

SMOKE = ROOT / "workflows" / "studies" / "smoke.toml"
STEPS = 2
SMALLER = {
    "data.test_questions": "4",
    "rollout.torch_dtype": "float32",
    "cluster.cpus_per_engine": "0.5",
    "tracking.report": "false",
}
THIRD_CELL = '\n[[cell]]\nname = "blocked"\nmethod = "grpo"\n'


@dataclass(frozen=True)
class Place:
    """A folder of runs, a study's file beside it, and a place for Ray's sockets."""

    base: Path
    ray: Path

    @property
    def study(self) -> Path:
        return self.base / "runs" / "smoke"

    def arguments(self, *, more_cells: str = "", concurrent: int = 2) -> list[str]:
        """Those of the command on the smoke study, whose file it writes; two of its runs fit into four CPUs."""
        text = SMOKE.read_text().replace('"../recipes', f'"{ROOT}/workflows/recipes')
        file = self.base / "study.toml"
        text = text.replace("concurrent = 2", f"concurrent = {concurrent}").replace("steps = 5", f"steps = {STEPS}")
        file.write_text(text + more_cells)
        given = SMALLER | {"run.folder": str(self.base / "runs"), "run.cache": str(self.base / "cache")}
        return [str(file), *(part for key, value in given.items() for part in (f"--{key}", value))]

    def start(self, *, concurrent: int) -> Popen[str]:
        """The command under way."""
        asked = self.arguments(concurrent=concurrent)
        return start(ROOT / "workflows" / "compare.py", *asked, cwd=self.base, ray=self.ray)

    def mlflow_runs(self) -> dict[str, Run]:
        """The newest MLflow run of each name."""
        client = MlflowClient(f"sqlite:///{self.base / 'runs' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("calibadv")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        return {run.info.run_name: run for run in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("compare")
    (base / "runs").mkdir()
    MlflowClient(f"sqlite:///{base / 'runs' / 'mlflow.db'}").search_experiments()  # its schema, made here in a second
    with ray_folder() as ray:
        yield Place(base, ray)


@pytest.mark.usefixtures("local_ray")
def test_a_study_is_interrupted_gone_on_with_and_finished(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    grpo, calibadv = place.study / "grpo-seed0", place.study / "calibadv-seed0"

    # Ctrl-C when the first cell is done and the second has begun.
    process = place.start(concurrent=1)
    with killed_on_error(process):
        wait_for((calibadv / "metrics.jsonl").exists, process, "the second cell")
        os.killpg(process.pid, signal.SIGINT)
    code, output = ended(process)
    assert code == 130, output
    assert "Traceback" not in output
    assert json.loads((grpo / "summary.json").read_text())["steps"] == STEPS
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
        assert run_command(lambda: main(place.arguments(more_cells=THIRD_CELL))) == 1
    assert (grpo / "summary.json").stat().st_mtime_ns == done_at
    assert (calibadv / "summary.json").exists()
    table = (place.study / "table.md").read_text()
    assert "| blocked | grpo | 0 of 1, 1 failed |" in table
    assert "- blocked-seed0: `calibadv.tracking.run_folder.RunFolderError: " in table

    # Once more without that cell: nothing is left to run. That Ray is not even started: tests/studies/test_report.py.
    before = {path: path.stat().st_mtime_ns for folder in (grpo, calibadv) for path in folder.rglob("*")}
    capsys.readouterr()
    assert run_command(lambda: main(place.arguments())) == 0
    output = "".join(capsys.readouterr())
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
