"""The agent as a Serve application: engines that answer, and before them one process that speaks HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from calibadv.cluster.shipped import shipped_factory
from calibadv.config import Config, role
from calibadv.rollout.protocols import Answered, EngineDied, Sampled, SearchFn
from calibadv.rollout.tools import make_tools
from calibadv.tracking.served import ServedStore
from calibadv.types import Document
from serve.access import token_of
from serve.agent.app import FLUSH_S, Served, make_app
from serve.agent.metrics import ray_metrics
from serve.agent.news import Accepted, Asked, Busy, Interrupted, News
from serve.agent.policy import PROOF_AGE_S, Policy, make_parts
from serve.agent.traces import Traces
from serve.listening import DRAIN_S, Bounded, Listener, listen

# Seconds before each attempt at a question whose engine is lost before it has said anything. Serve replaces an engine
# that is lost in a living process after three failed health checks: until then a question may meet it again.
PAUSES_S = (0.0, 0.0, 2.0, 4.0, 8.0, 16.0)
# An engine that is gone, or its process. Whatever else a replica raises is a mistake, which another one would repeat.
LOST = (
    EngineDied,
    RayActorError,
    WorkerCrashedError,
    NodeDiedError,
    LocalRayletDiedError,
    OutOfMemoryError,
    ObjectLostError,
    DeploymentUnavailableError,
)
HEAD = "node:__internal_head__"  # what Ray calls the head node among its resources
CALLS = 4096  # at a time: questions, of which `max_concurrent` have a place, and whatever is answered at once
SPARE_S = 30.0  # beyond an answer's time
END_S = 2.0  # that Serve waits before it ends a replica


class Engines:
    """The `Answerer` over the policy's replicas: a lost one is noticed only where it had begun to speak."""

    def __init__(
        self,
        handle: DeploymentHandle,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handle, self._pause, self._clock = handle, pause, clock
        self._stream = handle.options(stream=True)
        self._sampled_s = self._searched_s = float("-inf")  # when an engine, and the search, last answered

    async def news(self, asked: Asked) -> AsyncGenerator[News, None]:
        """See `Answerer`. A question of which nothing was said yet is asked again elsewhere."""
        said = accepted = False
        for pause_s in PAUSES_S:
            await self._pause(pause_s)
            answer = self._stream.roll.remote(asked)
            try:
                async for together in answer:
                    for step in together:
                        if isinstance(step, Accepted) and accepted:
                            continue
                        accepted, said = True, said or not isinstance(step, Accepted)
                        self._note(step)
                        yield step
                return
            except BackPressureError as full:
                raise Busy("the engines' queue is full: try again soon") from full
            except LOST as lost:
                if said:
                    raise Interrupted("the engine was lost while it answered") from lost
            finally:
                answer.cancel()  # does nothing where it has ended
        raise Interrupted(f"the engine was lost {len(PAUSES_S)} times before it answered")

    async def search(self, query: str) -> tuple[Document, ...]:
        """See `Answerer`."""
        try:
            found: tuple[Document, ...] = await self._handle.search.remote(query)
        except LOST as lost:
            raise Interrupted("the engine was lost while it searched") from lost
        return found

    async def ready(self) -> None:
        """See `Answerer`. Under load what rollouts tell is proof enough, and no engine's queue is stood in."""
        if self._clock() - min(self._sampled_s, self._searched_s) > PROOF_AGE_S:
            await self._handle.ready.remote()

    def _note(self, news: News) -> None:
        if isinstance(news, Sampled):
            self._sampled_s = self._clock()
        elif isinstance(news, Answered):
            self._searched_s = self._clock()


class Front(Listener):
    """The one process that speaks HTTP, at the settings' address of its node."""

    def __init__(self, served: Served, engines: DeploymentHandle, store: ServedStore) -> None:
        settings = served.settings
        served = replace(served, token=token_of(settings.token_env))
        traces = Traces(store, settings.trace_share, text=settings.trace_text) if settings.trace_share else None
        app = make_app(served, Engines(engines), traces=traces, metrics=ray_metrics)
        calls = Bounded(app, CALLS, settings.timeout_s + SPARE_S)
        self._stop = listen(calls, settings.host, settings.port, lifespan=True)


def agent_application(config: Config, model: str, folder: Path, search: Callable[[], SearchFn]) -> Application:
    """The app over the model in `folder`, which is called `model`; `search` makes its search tool in each replica.

    ValueError where the settings name a token that is not in the environment, or tools that cannot be used.
    """
    settings, rollout = config.serve, config.rollout
    token_of(settings.token_env)  # here too: in one line, before anything starts
    method = config.method.made
    parts = shipped_factory(partial(make_parts, config, method, str(folder), search, make_tools(rollout.tools)))
    served = Served(model, settings, feedback_file(config), config.reward.tokens, about=about(config, model))
    engines = serve.deployment(
        Policy,
        name="policy",
        **_replicas(config),
        ray_actor_options={
            "num_cpus": config.cluster.cpus_per_engine,
            "num_gpus": config.cluster.gpus_per_engine * rollout.tensor_parallel,
            "resources": role(config.cluster.engines_on),
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}},
        },
        max_ongoing_requests=rollout.max_concurrent,
        max_constructor_retry_count=1,  # a model that cannot be loaded does not get better
        health_check_period_s=5,
        health_check_timeout_s=60,  # a loaded machine is slow, not ill
        graceful_shutdown_timeout_s=settings.timeout_s + 10,  # one too many ends when its questions are answered
    )
    front = serve.deployment(
        Front,
        name="front",
        num_replicas=1,
        # On the head, whose address is known. No runtime_env with the token, which Ray would log: processes have ours.
        ray_actor_options={"num_cpus": 0, "resources": {HEAD: 0.001}},
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=END_S + DRAIN_S + FLUSH_S + 5,
    )
    return front.bind(served, engines.bind(parts), ServedStore.of(config, folder))


def feedback_file(config: Config) -> Path:
    """Where thumbs are kept."""
    return Path(config.serve.feedback or config.run.folder / "feedback.jsonl").absolute()


def about(config: Config, model: str) -> str:
    """One line on what answers."""
    return f"{model}, trained by {config.method.name}; searches {Path(config.data.corpus).name}"


def _replicas(config: Config) -> dict[str, Any]:
    """A fixed number of engines, or as many as the questions under way ask for."""
    settings = config.serve
    if settings.max_replicas <= settings.replicas:
        return {"num_replicas": settings.replicas}
    # Each engine's share of what the front lets in: of fewer questions than that no more engines would ever start.
    target = min(config.rollout.max_concurrent // 2, settings.max_concurrent // settings.max_replicas)
    scaling = {
        "min_replicas": settings.replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": max(1, target),
    }
    return {"autoscaling_config": scaling}
