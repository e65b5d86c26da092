"""The policy board: a small named actor where the learner publishes versions and the engines wait for them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from calibadv.cluster.weights import PackedWeights


@dataclass(frozen=True, slots=True)
class Published:
    """The newest policy: its version and its weights."""

    version: int
    weights: PackedWeights


class PolicyBoard:
    """Holds the newest weights' references, never the weights. Create it with `create_board`.

    Only references to the newest version are kept, so that older chunks are freed when no engine reads them.
    """

    def __init__(self) -> None:
        self._published: Published | None = None
        self._news = asyncio.Condition()
        self._actors: defaultdict[str, list[Any]] = defaultdict(list)
        self._ended: set[str] = set()
        self._serving: dict[str, int] = {}
        self._deaths: Counter[str] = Counter()

    async def publish(self, version: int, weights: PackedWeights) -> None:
        """Make `version` the newest and wake all who wait for it. Versions only grow."""
        if version <= self._newest():
            raise ValueError(f"version {version} is not newer than the published {self._newest()}")
        async with self._news:
            self._published = Published(version, weights)
            self._news.notify_all()

    async def wait(self, version: int) -> int:
        """The newest version, as soon as it is `version` or later."""
        async with self._news:
            await self._news.wait_for(lambda: self._newest() >= version)
        return self._newest()

    async def enlist(self, stream: str, actor: list[Any]) -> None:
        """Note that `actor` (in a list, lest Ray resolves it) works for `stream` and ends with it."""
        if stream in self._ended:
            ray.kill(actor[0])
        self._actors[stream].append(actor[0])

    async def end(self, stream: str) -> None:
        """End the actors of `stream`. Left to Ray's garbage collection they stay while a task waits for a version."""
        self._ended.add(stream)
        for actor in self._actors.pop(stream, []):
            ray.kill(actor)

    async def end_all(self) -> None:
        """End the actors of every stream that is still open, so that whoever reads it gets an error at once."""
        for stream in list(self._actors):
            await self.end(stream)

    async def latest(self) -> Published | None:
        """The newest version with its weights; None before the first."""
        return self._published

    async def report(self, engine: str, version: int) -> None:
        """An engine says that it serves `version` from now on."""
        self._serving[engine] = version

    async def versions(self) -> dict[str, int]:
        """The version that each engine last reported."""
        return dict(self._serving)

    async def report_death(self, engine: str) -> int:
        """An engine died and its actor is about to be replaced; how many have died so far."""
        self._serving.pop(engine, None)
        self._deaths[engine] += 1
        return self._deaths.total()

    async def deaths(self) -> int:
        """How many engines have died so far, as far as their actors could tell."""
        return self._deaths.total()

    def _newest(self) -> int:
        return -1 if self._published is None else self._published.version


def create_board(name: str) -> Any:
    """A handle of a new board. It lives as long as its handle here; others find it with `find_board`."""
    # On the driver's own node: an actor that asks for nothing may be put anywhere, and a lost spot node ends it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {
        "name": name,
        "num_cpus": 0,
        "max_concurrency": 100_000,  # every waiting rollout is a pending call
        "scheduling_strategy": here,
    }
    return ray.remote(PolicyBoard).options(**options).remote()


def find_board(name: str) -> Any:
    """A handle of the board called `name`. Raises ValueError if there is none."""
    try:
        return ray.get_actor(name)
    except ValueError as error:
        raise ValueError(
            f"no policy board named {name!r}: create it with create_board before rollouts start"
        ) from error


def engine_name() -> str:
    """The engine's name in rows and reports: its actor's id, equal before and after a restart, and its process."""
    context = ray.get_runtime_context()
    return f"{(context.get_actor_id() or 'driver')[:8]}-{os.getpid()}"
