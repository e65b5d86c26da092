"""The search deployment: one replica holds retriever and reranker, batches queries, and speaks handle and HTTP.

Retriever and reranker live in one replica on purpose: they share one forward of the query, and a second hop would
send twenty passages a query between processes for nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from calibadv.search.build import build_pipeline
from calibadv.search.pipeline import SearchCounts
from calibadv.search.settings import SearchSettings
from calibadv.types import Document
from serve.wire import parse_retrieve, retrieve_response

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 2**20

Ranked = tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class _Query:
    text: str
    top_k: int | None = None
    top_k_retrieve: int | None = None
    retrieval_order: bool = False


class SearchService:
    """Answers `search` (one query, by handle) and `POST /retrieve`, `GET /healthz` (HTTP); queries share batches."""

    def __init__(
        self,
        load_documents: Callable[[], Sequence[Document]],
        settings: SearchSettings,
        cache_dir: str,
        max_batch_size: int,
        batch_wait_s: float,
    ) -> None:
        self._pipeline = build_pipeline(load_documents(), settings, cache_dir)
        # One thread: the event loop keeps answering health checks while a batch computes.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._limits = settings.limits
        self._failure: Exception | None = None
        self._probes = 0
        self._together.set_max_batch_size(max_batch_size)
        self._together.set_batch_wait_timeout_s(batch_wait_s)
        self._pipeline.search_batch(["warm up"])  # the first forward is slow; no rollout should wait for it

    async def search(self, query: str) -> Ranked:
        """Documents for one query with the settings' top-k. A query over the length limit is cut, not refused."""
        documents: Ranked = await self._together(_Query(query))
        return documents

    async def counts(self) -> SearchCounts:
        """What this replica has served, cache hits among it."""
        return self._pipeline.counts

    async def check_health(self) -> None:
        """Raises when this replica cannot answer; Serve then replaces it. Asked only after a failure: batches probe."""
        if self._failure is not None:
            self._probes += 1
            await self._run([_Query(f"health probe {self._probes}")])  # a new text each time: not from the cache

    async def __call__(self, request: Request) -> Response:
        """HTTP. 400 and 413 name what is over which limit; Serve itself answers 503 when its queue is full."""
        route = (request.method, request.url.path)
        if route == ("GET", "/healthz"):
            return await self._healthz()
        if route != ("POST", "/retrieve"):
            return PlainTextResponse("expected POST /retrieve or GET /healthz\n", 404)
        body = await _read(request)
        if body is None:
            return PlainTextResponse(f"the body is over {MAX_BODY_BYTES} bytes: send several calls\n", 413)
        try:
            wanted = parse_retrieve(body, self._limits)
            self._pipeline.check_top_k(wanted.top_k, wanted.top_k_retrieve)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        queries = [_Query(q, wanted.top_k, wanted.top_k_retrieve, wanted.retrieval_order) for q in wanted.queries]
        found = await asyncio.gather(*(self._together(query) for query in queries))
        return JSONResponse(retrieve_response(found, wanted.return_scores))

    async def _healthz(self) -> Response:
        try:
            await self.check_health()
        except Exception as error:
            return PlainTextResponse(f"search fails: {error}\n", 503)
        return PlainTextResponse("ok\n")

    @serve.batch  # type: ignore[untyped-decorator]
    async def _together(self, queries: list[_Query]) -> list[Ranked]:
        return await self._run(queries)

    async def _run(self, queries: list[_Query]) -> list[Ranked]:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._worker, self._search, queries)
        except Exception as error:
            logger.exception("search: a batch of %d queries failed", len(queries))
            self._failure = error
            raise
        self._failure = None
        return found

    def _search(self, queries: list[_Query]) -> list[Ranked]:
        same_settings: dict[tuple[int | None, int | None, bool], list[int]] = defaultdict(list)
        for place, query in enumerate(queries):
            same_settings[query.top_k, query.top_k_retrieve, query.retrieval_order].append(place)
        found: list[Ranked] = [()] * len(queries)
        for (top_k, top_k_retrieve, order), places in same_settings.items():
            texts = [queries[place].text for place in places]
            answers = self._pipeline.search_batch(texts, top_k, top_k_retrieve, order)
            for place, documents in zip(places, answers, strict=True):
                found[place] = documents
        return found


async def _read(request: Request) -> bytes | None:
    """The body, or None as soon as it is over the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
