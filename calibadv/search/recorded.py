"""One search for all engines of a run: asks what the ledger does not know, each query once, within its limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibadv.kept_answers import Engine
from calibadv.rollout.protocols import SearchFailed, SearchFn
from calibadv.search.client import RetryingSearch
from calibadv.search.json_api import SHIPPED, api_of
from calibadv.search.ledger import Ledger
from calibadv.search.limits import Limits
from calibadv.search.mcp_api import mcp_api_of
from calibadv.search.settings import SearchConfig
from calibadv.section import Decides
from calibadv.types import Document
from calibadv.user_code import digest

Ranked = tuple[Document, ...]


class RecordedSearch:
    """A `SearchFn`. The engine is asked for a query's normal form (`normal`), on which alone its answer depends.

    `search` None: what is not recorded is `SearchFailed` at once, the environment's fault.
    """

    def __init__(
        self,
        search: SearchFn | None,
        ledger: Ledger | None = None,
        *,
        normal: Callable[[str], str] = str,
        calls: Callable[[], int] = lambda: 0,
        price: float = 0.0,
    ) -> None:
        """`calls`: how many the engine was asked so far, those tried again among them; `price` of each."""
        self._search, self._ledger, self._normal = search, ledger, normal
        self._calls, self._price = calls, price
        self._asked: dict[str, asyncio.Task[Ranked]] = {}
        self._counts: Counter[str] = Counter()
        self._told = 0  # calls that were counted by `take_counts`

    async def __call__(self, query: str) -> Ranked:
        """Ranked documents, best first. Raises `SearchFailed`."""
        query = self._normal(query)
        self._counts["queries"] += 1
        if self._ledger is not None and (known := self._ledger.find(query)) is not None:
            self._counts["hits"] += 1
            return known
        if query in self._asked:
            self._counts["shared"] += 1
        else:
            task = self._asked[query] = asyncio.create_task(self._ask(query))
            task.add_done_callback(lambda _: self._asked.pop(query))
        try:
            return await asyncio.shield(self._asked[query])  # whoever gives up takes nothing from the others
        except SearchFailed:
            self._counts["failed"] += 1
            raise

    def take_counts(self) -> dict[str, float]:
        """What was done since this was last called, by metric; {} for nothing."""
        counts, self._counts = self._counts, Counter()
        calls = self._calls()
        told, self._told = self._told, calls
        if not counts["queries"]:
            return {}
        names = ("queries", "shared", "failed", *(("hits",) if self._ledger is not None else ()))
        metrics = {f"search/{name}": float(counts[name]) for name in names} | {"search/calls": float(calls - told)}
        if self._ledger is not None:
            metrics["search/hit_rate"] = counts["hits"] / counts["queries"]
        if self._price:
            metrics["search/cost"] = self._price * (calls - told)
        return metrics

    async def _ask(self, query: str) -> Ranked:
        if self._search is None:
            raise SearchFailed(
                f"the ledger has no answer to {query[:80]!r}, and search.ledger_mode = 'replay' asks no engine: record "
                "the run first, or set search.ledger_mode to 'record'"
            )
        documents = await self._search(query)
        return documents if self._ledger is None else self._ledger.keep(query, documents)


def recorded_search(
    config: SearchConfig, make: Callable[[], RetryingSearch], engine: Engine, limits: Limits | None = None
) -> RecordedSearch:
    """The search that the settings describe, over the engine that `make` gives; in replay none is made."""
    ledger = Ledger(Path(config.ledger), engine, config.ledger_mode) if config.ledger else None
    limits = limits or Limits(config.calls_per_second, config.concurrency)
    replay = ledger is not None and config.ledger_mode == "replay"
    search = None if replay else make().within(limits.place)
    return RecordedSearch(search, ledger, normal=config.cut, calls=lambda: limits.calls, price=config.call_price)


def engine_of(config: SearchConfig, corpus: str) -> Engine:
    """What decides the engine's answers: its name and the settings that reach it.

    `corpus`: the digest of what our own search app serves. A name of the user's (`search.ledger_engine`) stands for
    address and code, and the user for both.
    """
    of_kind = config.model_dump(mode="json", exclude=set(config.deciding(Decides.MEANS)), exclude_defaults=True)
    if config.elsewhere:
        of_kind = _asked_by_url(config) if config.url else {"mcp": config.mcp} if config.mcp else {}
    asked = {**of_kind, "top_k": config.top_k, "max_query_chars": config.max_query_chars}
    return {**(_named(config) or {"corpus": corpus}), **asked}


def _asked_by_url(config: SearchConfig) -> dict[str, Any]:
    encoded = {name: getattr(config, name) for name in ("encoder", "query_prefix", "max_tokens")}
    if config.url_shape == "pgvector":
        return {"sql": config.statement} | (encoded if config.sql_needs_vector else {})
    if config.url_shape not in SHIPPED:
        return {"shape": config.url_shape, "top_k_retrieve": config.top_k_retrieve}
    api = api_of(config.url_shape, config.http)
    return {"http": api.model_dump(exclude_defaults=True)} | (encoded if api.needs_vector else {})


def _named(config: SearchConfig) -> Engine:
    if config.ledger_engine:
        return {"name": config.ledger_engine}
    if config.tool:
        code = digest(config.tool, "search.tool")  # "": of a notebook's cell
        return {"tool": config.tool.rpartition(":")[2], "code": code} if code else {"tool": config.tool}
    if config.mcp:
        return {"tool": mcp_api_of(config.mcp).tool}
    return {"url": config.url} if config.url else {}
