"""The one process through which all engines of a run search: it has the ledger and keeps the limits.

SQLite's log is not safe between hosts, and only one who counts every call keeps a rate. So one actor on the driver's
node asks the search engine, and engines, wherever they are, ask the actor. It starts again by itself after a crash,
with the same file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from calibadv.cluster.names import ray_name
from calibadv.cluster.shipped import shipped_factory
from calibadv.kept_answers import Engine
from calibadv.rollout.protocols import SearchFailed, SearchFn
from calibadv.search.client import RetryingSearch
from calibadv.search.ledger import Ledger
from calibadv.search.recorded import RecordedSearch, recorded_search
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

logger = logging.getLogger(__name__)

THREADS = 64  # for a user's function that is not asynchronous, where no concurrency is set
COUNTS_TIMEOUT_S = 30.0


class SearchOwner:
    """Its methods are called from other processes. Create it with `start_shared`."""

    def __init__(self, make: Callable[[], RecordedSearch], threads: int = THREADS) -> None:
        self._make, self._threads = make, threads
        self._search: RecordedSearch | None = None

    async def search(self, query: str) -> tuple[Document, ...] | SearchFailed:
        """The documents, or why there are none: what Ray raises elsewhere is of another class."""
        if self._search is None:  # here and not at the start: clients belong to the event loop they are made in
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self._threads))
            self._search = self._make()
        try:
            return await self._search(query)
        except SearchFailed as error:
            return SearchFailed(str(error))

    async def take_counts(self) -> dict[str, float]:
        """See `RecordedSearch.take_counts`."""
        return self._search.take_counts() if self._search is not None else {}


def start_shared(config: SearchConfig, make: Callable[[], RetryingSearch], engine: Engine, name: str) -> Any:
    """A handle of the process `name`, which asks what `make` gives there; it lives as long as the handle.

    ValueError for a ledger that cannot be used.
    """
    if config.ledger:
        with closing(Ledger(Path(config.ledger), engine, config.ledger_mode)) as ledger:
            logger.info("search.ledger %s: %d answers of this engine", config.ledger, ledger.count())
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {
        "name": ray_name(name),
        "num_cpus": 0,
        "max_concurrency": 100_000,  # every waiting rollout is a pending call
        "max_restarts": -1,
        "max_task_retries": -1,
        "scheduling_strategy": here,
    }
    absolute = config.but(ledger=str(Path(config.ledger).absolute())) if config.ledger else config
    recorded = shipped_factory(partial(recorded_search, absolute, make, engine))
    return ray.remote(SearchOwner).options(**options).remote(recorded, config.concurrency or THREADS)


def shared_search(name: str) -> SearchFn:
    """A `SearchFn` over the process that `start_shared` started, for any actor of the cluster.

    RuntimeError where there is none.
    """
    try:
        owner = ray.get_actor(ray_name(name))
    except ValueError as error:
        raise RuntimeError(f"no process {name!r} searches on this Ray cluster: call start_shared first") from error

    async def search(query: str) -> tuple[Document, ...]:
        try:
            found: tuple[Document, ...] | SearchFailed = await owner.search.remote(query)
        except RayActorError as error:
            raise SearchFailed(f"the process that asks the search engine has died: {error}") from error
        if isinstance(found, SearchFailed):
            raise found
        return found

    return search


def take_counts(name: str) -> dict[str, float]:
    """What the process did since it was last asked, by metric; {} where it does not say."""
    try:
        counts: dict[str, float] = ray.get(ray.get_actor(ray_name(name)).take_counts.remote(), timeout=COUNTS_TIMEOUT_S)
    except (ValueError, RayActorError, ray.exceptions.GetTimeoutError) as error:
        logger.warning("the search has not said what it did: %s", error)
        return {}
    return counts
