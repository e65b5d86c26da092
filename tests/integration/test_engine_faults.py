"""Engines that are killed or stopped from outside while they roll out, on a real Ray with real engines.

What comes out is compared with what an undisturbed engine in this process comes to, token by token: the torch engine's
tokens depend on nothing but prompt, seed and weights, so that a row that was rolled out again must be the same row.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from transformers import AutoModelForCausalLM

from calibadv.cluster.chunks import chunk_state
from calibadv.cluster.coordinator import create_coordinator
from calibadv.cluster.rollout_worker import RollGroupFn, WorkerSettings
from calibadv.cluster.rows import FinishedRow, RolloutRow
from calibadv.cluster.stream import PoolSettings, stream_rollouts
from calibadv.rollout.protocols import GenerateFn, Sampling
from calibadv.rollout.torch_engine import TorchEngine
from tests.cluster.fake_engine import row, until_there
from tests.rollout.engine_suite import perturbed, prompt, save_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]
logger = logging.getLogger(__name__)

STEPS, ROWS, TURNS = 3, 8, 4
TIMEOUT_S = 10.0  # of a silent engine; heartbeats come every 2.5 s
SIGNALS = {1: signal.SIGKILL, 2: signal.SIGSTOP}  # by step
POOL = PoolSettings(engines=2, rows_per_step=ROWS, num_cpus=0.5)


def turns(gate: Path | None = None) -> RollGroupFn:
    """Some turns a row, each after the tokens of the one before.

    With a `gate`, a folder, each step's first row ends once all of the step are under way, and the others only once the
    step's engine is lost: that one is in the middle of its share, however quick it is.
    """

    async def roll(row: RolloutRow, generate: GenerateFn, version: int) -> Any:
        ids = prompt(100 * row.step + row.index)
        for turn in range(TURNS):
            generation = await generate(ids, Sampling(32, seed=1000 * version + turn, stop=()))
            ids = np.concatenate([ids, generation.ids])
            if turn == 0 and gate is not None and row.step in SIGNALS:
                (gate / f"begun-{row.step}-{row.index}").touch()
                first = row.index == 0
                await until_there(gate, *((f"begun-{row.step}-", ROWS) if first else (f"lost-{row.step}", 1)))
        return version, ids.tolist()

    return roll


def undisturbed(folder: Path, policies: list[Any]) -> dict[tuple[int, int], Any]:
    """What each row comes to with the policy of its step."""
    engine, roll = TorchEngine.from_folder(folder), turns()

    async def step(version: int) -> list[Any]:
        return await asyncio.gather(*(roll(row(version, index), engine, version) for index in range(ROWS)))

    found = {}
    try:
        for version, policy in enumerate(policies):
            engine.load_weights(policy.state_dict().items(), version)
            found |= {(version, index): rolled for index, rolled in enumerate(asyncio.run(step(version)))}
    finally:
        engine.close()
    return found


class Run:
    """A stream of steps, each with a policy of its own, that is read as a trainer reads it."""

    def __init__(self, folder: Path, name: str, gate: Path) -> None:
        self.coordinator = create_coordinator(name)
        self.worker = WorkerSettings(
            partial(TorchEngine.from_folder, folder), partial(turns, gate), name, engine_timeout_s=TIMEOUT_S
        )
        base = AutoModelForCausalLM.from_pretrained(folder).float()
        self.policies = [base, *(perturbed(folder, seed=step) for step in range(1, STEPS))]
        self.rows: list[FinishedRow] = []

    def read(self, on_row: Callable[[FinishedRow], None]) -> dict[tuple[int, int], Any]:
        """What each row came to. `on_row` may do what it likes to the engines."""
        self._publish(0)
        left = Counter(step for step in range(STEPS) for _ in range(ROWS))
        given = [row(step, index) for step in range(STEPS) for index in range(ROWS)]
        for finished in stream_rollouts(given, self.worker, POOL):
            self.rows.append(finished)
            on_row(finished)
            left[finished.step] -= 1
            if left[finished.step] == 0 and finished.step + 1 < STEPS:
                self._publish(finished.step + 1)
        assert sorted((r.step, r.index) for r in self.rows) == [(r.step, r.index) for r in given]
        assert all(version == r.step for r in self.rows for version, _ in [r.rolled])
        return {(r.step, r.index): r.rolled for r in self.rows}

    def other_engine(self, name: str) -> str:
        """The engine beside this one, once it serves: one that was lost before may still be on its way back."""
        while True:
            others = {engine for engine in ray.get(self.coordinator.engines.remote()).serving if engine != name}
            if others:
                (other,) = others
                return other
            time.sleep(0.1)

    def _publish(self, version: int) -> None:
        ray.get(self.coordinator.publish.remote(version, chunk_state(self.policies[version].state_dict().items())))


def test_steps_that_lose_engines_are_the_steps_of_an_undisturbed_run(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    gate = tmp_path / "gate"
    gate.mkdir()
    run = Run(folder, "disturbed", gate)
    engines: dict[int, set[str]] = {step: set() for step in range(STEPS)}
    lost: dict[int, tuple[str, float]] = {}

    def lose_one(row: FinishedRow) -> None:
        """At the first row of a step the engine that did not send it."""
        step = row.step
        engines[step].add(row.engine)
        if step in SIGNALS and step not in lost:
            other = run.other_engine(row.engine)
            lost[step] = other, time.time()
            os.kill(int(other.partition("-")[2]), SIGNALS[step])
            (gate / f"lost-{step}").touch()

    assert run.read(lose_one) == undisturbed(folder, run.policies)
    deaths = ray.get(run.coordinator.engines.remote()).deaths
    for step, (engine, lost_s) in lost.items():
        actor, _, pid = engine.partition("-")
        assert [words for words in deaths if words.startswith(f"{engine}: ")]
        assert not Path(f"/proc/{pid}").exists()
        replaced = [r for r in run.rows if r.engine.startswith(actor) and r.engine != engine and r.step >= step]
        assert replaced
        begun = min(row.started_s for row in replaced) - lost_s
        ended = min(row.finished_s for row in replaced) - lost_s
        logger.info(
            "%s: the next engine's first row began after %.1f s, ended after %.1f s", SIGNALS[step], begun, ended
        )
    assert f"{lost[2][0]}: silent for {TIMEOUT_S:g} s" in deaths
