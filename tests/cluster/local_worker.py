"""Workers and their coordinator in this process, without Ray."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NoReturn

import torch

from calibadv.cluster.coordinator import Coordinator
from calibadv.cluster.processes import EngineProcess
from calibadv.cluster.rollout_worker import RolloutWorker, WorkerContext, WorkerSettings


class LocalCoordinator:
    """What an actor's handle is: each method by `.remote`, here a task of the test's event loop."""

    def __init__(self) -> None:
        self.actor = Coordinator()
        self.loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self.actor, name)
        return SimpleNamespace(remote=partial(self._call, method))

    def _call(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a thread: the start of an actor, or its heartbeat
            return asyncio.run_coroutine_threadsafe(method(*arguments), self.loop)
        return self.loop.create_task(method(*arguments))

    async def publish_number(self, version: int) -> None:
        """`version`, whose one weight is its number."""
        weights: Any = [("weight", torch.tensor([float(version)]))]
        await self.actor.publish(version, weights)

    async def deaths(self) -> tuple[str, ...]:
        """What was said of each engine that has died."""
        return (await self.actor.engines()).deaths


class Exited(BaseException):
    """In place of the end of an engine's process."""


def exit_process(_: int) -> NoReturn:
    raise Exited


def wait_for(answer: concurrent.futures.Future[Any]) -> Any:
    """Called in the thread that plays the actor's start."""
    return answer.result(10)


class Workers:
    """Makes workers as Ray's actors would be made, each of them an engine of its own."""

    def __init__(self, coordinator: LocalCoordinator) -> None:
        self.coordinator, self.made = coordinator, 0

    async def make(self, settings: WorkerSettings) -> RolloutWorker:
        """A started engine."""
        self.made += 1
        process = EngineProcess(f"e{self.made}", f"a{self.made}", "node", self.made, 0.0, 60.0)
        given: Any = lambda weights: weights  # noqa: E731 (what is published here is what is fetched)
        context = WorkerContext(self.coordinator, None, process, wait_for, given, exit_process)
        return await asyncio.to_thread(RolloutWorker, settings, "stream", context)
