"""Stages and their board in this process, without Ray: `board.method.remote(...)` runs the board's own coroutine."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from calibadv.cluster import stage as stage_module
from calibadv.cluster.board import PolicyBoard
from calibadv.cluster.processes import EngineProcess
from calibadv.cluster.stage import RolloutStage, StageSettings


class LocalBoard:
    """What an actor's handle is: each method by `.remote`, here a task of the test's event loop."""

    def __init__(self, board: PolicyBoard) -> None:
        self.board = board
        self.loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self.board, name)
        return SimpleNamespace(remote=partial(self._call, method))

    def _call(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a thread: the start of an actor, or its beats
            return asyncio.run_coroutine_threadsafe(method(*arguments), self.loop)
        return self.loop.create_task(method(*arguments))

    async def publish(self, version: int) -> None:
        """`version`, whose one weight is its number."""
        await self.board.publish(version, [("weight", torch.tensor([float(version)]))])  # type: ignore[arg-type]


class Exited(BaseException):
    """In place of the end of an engine's process."""


class Stages:
    """Makes stages as Ray's actors would be made, each of them an engine of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, board: LocalBoard) -> None:
        self.board, self.made = board, 0

        def exit_process(_: int) -> None:
            raise Exited

        monkeypatch.setattr(stage_module, "find_board", lambda _: board)
        monkeypatch.setattr(stage_module, "fetch", lambda weights: weights)
        monkeypatch.setattr(stage_module.os, "_exit", exit_process)

    async def make(self, monkeypatch: pytest.MonkeyPatch, settings: StageSettings, actor: str = "") -> RolloutStage:
        """A started engine; `actor` is given to start an actor's process again."""
        self.made += 1
        process = EngineProcess(f"e{self.made}", actor or f"a{self.made}", "node", self.made, 0.0, 60.0)
        context = SimpleNamespace(current_actor=None)

        def wait_for(
            answer: concurrent.futures.Future[Any],
        ) -> Any:  # called in the thread that plays the actor's start
            return answer.result(10)

        monkeypatch.setattr(stage_module, "this_process", lambda _: process)
        monkeypatch.setattr(stage_module.ray, "get", wait_for)
        monkeypatch.setattr(stage_module.ray, "get_runtime_context", lambda: context)
        return await asyncio.to_thread(RolloutStage, settings, "stream")
