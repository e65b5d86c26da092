"""An engine that answers with its version, and rollouts that write down what they were given."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibadv.cluster.rollout_worker import RollGroupFn
from calibadv.cluster.rows import RolloutRow
from calibadv.rollout.protocols import EngineDied, GenerateFn, Generation, Sampling, StopReason
from calibadv.types import IntArray, Phase, Question


class FakeEngine:
    """Its one token is its weight; it notices weights that change, and sleep, under a running request.

    Requests whose prompt holds `hangs_on` are never answered. `events` tells what was done to it, in order.
    """

    def __init__(
        self,
        seconds: float = 0.02,
        dies_on: int | None = None,
        hangs_on: int | None = None,
        events: list[str] | None = None,
    ) -> None:
        self.seconds, self.dies_on, self.hangs_on = seconds, dies_on, hangs_on
        self.events = [] if events is None else events
        self.awake = True
        self.version, self.weight = -1, -1

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:  # noqa: ARG002
        weight = self.weight
        assert self.awake, "a request to a sleeping engine"
        if self.hangs_on is not None and self.hangs_on in prompt_ids.tolist():
            await asyncio.sleep(3600)
        if self.dies_on is not None and self.dies_on in prompt_ids.tolist():
            raise EngineDied("as asked")
        await asyncio.sleep(self.seconds)
        assert self.weight == weight, "the weights changed under a running request"
        assert self.awake, "it fell asleep under a running request"
        return Generation(np.array([weight]), np.zeros(1, np.float32), StopReason.EOS)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        assert self.awake, "weights for a sleeping engine"
        self.events.append(f"load {version}")
        self.weight = int(dict(named_tensors)["weight"].item())
        self.version = version

    def sleep(self) -> None:
        self.awake = False
        self.events.append("sleep")

    def wake(self) -> None:
        self.awake = True
        self.events.append("wake")

    def close(self) -> None: ...


def exit_once(marker: Path) -> None:
    if not marker.exists():
        marker.touch()
        os._exit(1)


def row(step: int, index: int = 0, version: int | None = None) -> RolloutRow:
    """A training row whose question tells which one it is."""
    question = Question(f"{step}/{index}", f"{step}/{index}?", ("yes",))
    return RolloutRow(Phase.TRAIN, step, index, question, version=version)


async def until_there(folder: Path, prefix: str, count: int) -> None:
    """Waits until so many files of the folder have names with the prefix; ten minutes at most."""
    for _ in range(30_000):
        if sum(name.startswith(prefix) for name in os.listdir(folder)) >= count:
            return
        await asyncio.sleep(0.02)


def rollouts(
    die_once: Path | None = None, bug_at: int | None = None, together: tuple[Path, int] | None = None
) -> RollGroupFn:
    """Three turns a row, of which it gives the weights, the version and the question.

    `die_once` ends the process at row 5 of step 2 unless that file is there. With `together`, a folder and a number,
    no row ends before so many of its step have begun; rows of their own version are left out.
    """

    async def roll(row: RolloutRow, generate: GenerateFn, version: int) -> Any:
        prompt = np.array([row.step, row.index])
        if together is not None and row.version is None:
            folder, rows = together
            (folder / f"{row.step}-{row.index}").touch()
            await until_there(folder, f"{row.step}-", rows)
        weights = [int((await generate(prompt, Sampling(4))).ids[0]) for _ in range(3)]
        if die_once is not None and (row.step, row.index) == (2, 5):
            exit_once(die_once)
        if bug_at == row.index:
            raise KeyError("a bug in the rollout")
        return {"weights": weights, "version": version, "text": row.question.text}

    return roll
