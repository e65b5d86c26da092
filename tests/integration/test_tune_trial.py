"""A Tune trial whose request is the whole cluster: its engines run, so they run in what it has reserved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from calibadv.cluster.rollout_worker import RollGroupFn, WorkerSettings
from calibadv.cluster.rows import RolloutRow
from calibadv.cluster.stream import PoolSettings, stream_rollouts
from calibadv.config import load_config
from calibadv.rollout.protocols import GenerateFn
from tests.cluster.fake_engine import FakeEngine, row
from workflows.trials import trial_request

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

ENGINES = 3  # with the trial's own, the four CPUs of `local_ray`


def where() -> str:
    group = ray.util.get_current_placement_group()
    return "none" if group is None else str(group.id.hex())


def telling() -> RollGroupFn:
    async def roll(row: RolloutRow, generate: GenerateFn, version: int) -> Any:  # noqa: ARG001
        return where()

    return roll


def trial(config: dict[str, str]) -> None:
    from calibadv.cluster.coordinator import create_coordinator

    coordinator = create_coordinator("tune-trial")
    worker = WorkerSettings(FakeEngine, telling, "tune-trial", weights="own")
    rows = [row(0, index) for index in range(12)]
    done = list(stream_rollouts(rows, worker, PoolSettings(engines=ENGINES, rows_per_step=12, start_timeout_s=300.0)))
    said = {"trial": where(), "engines": sorted({finished.rolled for finished in done}), "rows": len(done)}
    Path(config["file"]).write_text(json.dumps(said))
    del coordinator


def test_a_trials_engines_run_in_what_it_reserves(tmp_path: Path) -> None:
    config = load_config(None, {"rollout.engines": ENGINES, "cluster.gpus_per_engine": 0})
    file = tmp_path / "said.json"
    tune.Tuner(
        tune.with_resources(trial, trial_request(config)),
        param_space={"file": str(file)},
        run_config=tune.RunConfig(name="t", storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    said = json.loads(file.read_text())
    assert said["rows"] == 12
    assert said["trial"] != "none"
    assert said["engines"] == [said["trial"]]
