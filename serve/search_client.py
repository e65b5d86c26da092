"""The search tool of rollouts: what the settings name, one query a call, retried until it answers or has to give up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from ray import serve
from ray.serve import context
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from calibadv.rollout.protocols import SearchFn
from calibadv.search.client import RetryingSearch, RetryPolicy
from calibadv.search.elsewhere import search_elsewhere
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from serve.shared_search import shared_search

logger = logging.getLogger(__name__)

RENEW_EVERY_S = 2.0


def search_factory(config: SearchConfig, app: str) -> Callable[[], SearchFn]:
    """What makes the search tool inside an engine, which asks by itself or through the one process of all engines."""
    return partial(shared_search, shared_name(app)) if config.together else engine_factory(config, app)


def shared_name(app: str) -> str:
    """The name of the process that searches for all engines of a run, by that of the run's search app."""
    return f"shared-{app}"


def engine_factory(config: SearchConfig, app: str) -> Callable[[], RetryingSearch]:
    """What makes the search: what is asked elsewhere, or the app of this name."""
    if config.elsewhere:
        return search_elsewhere(config)
    return partial(serve_search, app, RetryPolicy(config.timeout_s, config.patience_s))


def serve_search(app_name: str = "search", policy: RetryPolicy | None = None) -> RetryingSearch:
    """A `SearchFn` over the app that `start_search` started, for use inside any Ray actor of the same cluster.

    Queries of concurrent callers are batched on the server. A replica that dies, restarts or is overloaded is retried
    as `policy` says, and so is an app that is deleted and started again; then `SearchFailed` is raised. Raises
    `RuntimeError` at once when there is no such app.
    """
    try:
        handle = serve.get_app_handle(app_name)
    except Exception as error:
        raise RuntimeError(f"no search app {app_name!r} runs on this Ray cluster: call start_search first") from error
    renewed_s = time.monotonic()

    async def call(query: str) -> tuple[Document, ...]:
        nonlocal handle, renewed_s
        asked = handle
        try:
            documents: tuple[Document, ...] = await asked.search.remote(query)
        except DeploymentUnavailableError:
            # The app was deleted. A handle does not find its successor by itself when Serve was started again as well.
            if handle is asked and time.monotonic() - renewed_s > RENEW_EVERY_S:
                renewed_s = time.monotonic()  # before anything is awaited: one caller of many asks
                handle = await asyncio.to_thread(_successor, app_name)
                logger.info("search: a new handle of app %r", app_name)
            raise
        return documents

    return RetryingSearch(call, policy)


def _successor(app_name: str) -> DeploymentHandle:
    """A handle of the app as it is deployed now, by whichever controller. Raises while there is none."""
    context._set_global_client(None)  # Serve asks the controller that it has met before, even when that one is gone
    return serve.get_app_handle(app_name)
