"""What runs in a Tune trial: its processes load this file, not what the test of it does, half a minute each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ray

from calibadv.cluster.coordinator import create_coordinator
from calibadv.cluster.rollout_worker import RollGroupFn, WorkerSettings
from calibadv.cluster.rows import RolloutRow
from calibadv.cluster.stream import PoolSettings, stream_rollouts
from calibadv.rollout.protocols import GenerateFn
from tests.cluster.fake_engine import FakeEngine, row

ENGINES = 3  # with the trial's own, the four CPUs of `local_ray`


def where() -> str:
    group = ray.util.get_current_placement_group()
    return "none" if group is None else str(group.id.hex())


def telling() -> RollGroupFn:
    async def roll(row: RolloutRow, generate: GenerateFn, version: int) -> Any:  # noqa: ARG001
        return where()

    return roll


def trial(config: dict[str, str]) -> None:
    coordinator = create_coordinator("tune-trial")
    worker = WorkerSettings(FakeEngine, telling, "tune-trial", weights="own")
    rows = [row(0, index) for index in range(12)]
    done = list(stream_rollouts(rows, worker, PoolSettings(engines=ENGINES, rows_per_step=12)))
    said = {"trial": where(), "engines": sorted({finished.rolled for finished in done}), "rows": len(done)}
    Path(config["file"]).write_text(json.dumps(said))
    del coordinator
