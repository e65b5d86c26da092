"""The search deployment: one replica holds retriever and reranker, batches queries, and speaks handle and HTTP.

Retriever and reranker live in one replica on purpose: they share one forward of the query, and a second hop would
send twenty passages a query between processes for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from calibadv.search.build import build_pipeline
from calibadv.search.encoder import Encoder
from calibadv.search.pipeline import SearchPipeline
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from serve.access import authorised, token_of
from serve.listening import Bounded, Listener, listen
from serve.shards import ShardUnavailable, nearest_of_shards
from serve.wire import parse_retrieve, retrieve_response

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 2**20
PROOF_AGE_S = 10.0  # an answer this recent proves that the next one will come; after it readiness asks for one
PROBE_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 120.0  # of one call by HTTP: a caller that sends a byte a minute holds no place for ever
STUCK_AFTER_S = 300.0  # a batch may be slow (a cross-encoder on a CPU), and its replica is then alive

Ranked = tuple[Document, ...]
Build = Callable[[Sequence[Document], SearchConfig, str, Sequence[Any]], SearchPipeline]
"""(documents, settings, cache folder, handles of the index's shards) -> what a replica asks."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a batch, and what is asked of it beside the settings."""

    text: str
    top_k: int | None = None
    top_k_retrieve: int | None = None
    retrieval_order: bool = False


class SearchService(Listener):
    """Answers `search` (one query, by handle) and `POST /retrieve`, `GET /healthz` (HTTP); queries share batches."""

    def __init__(
        self,
        load_documents: Callable[[], Sequence[Document]],
        config: SearchConfig,
        cache_dir: str,
        *shards: Any,
        build: Build | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._token = token_of(config.token_env)
        # One thread: the event loop keeps answering health checks while a batch computes.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._config = config
        self._answered_s = -math.inf
        self._probes = 0
        self._batches = 0  # under way
        self._moved_s = clock()  # when a batch last ended, or began with none before it
        self._together.set_max_batch_size(config.max_batch_size)
        self._together.set_batch_wait_timeout_s(config.batch_wait_s)

        def ready() -> SearchPipeline:
            pipeline = (build or pipeline_of)(load_documents(), config, cache_dir, shards)
            pipeline.search_batch(["warm up"])  # the first forward is slow; no rollout should wait for it
            return pipeline

        # In the worker: shards are asked from a thread without an event loop.
        self._pipeline = self._worker.submit(ready).result()
        if config.http_port is not None:
            most = config.max_ongoing_requests + config.max_queued_requests
            self._stop = listen(Bounded(self._http, most, CALL_TIMEOUT_S), config.http_host, config.http_port)

    async def search(self, query: str) -> Ranked:
        """Documents for one query with the settings' top-k. A query over the length limit is cut, not refused."""
        documents: Ranked = await self._together(Query(query))
        return documents

    async def check_health(self) -> None:
        """Raises when this replica cannot answer; Serve then replaces it. A shard's failure is not its own."""
        if self._batches and self._clock() - self._moved_s < STUCK_AFTER_S:
            return
        try:
            await self._prove()
        except ShardUnavailable as error:
            logger.warning("search: not ready, %s", error)

    async def _prove(self) -> None:
        """Raises unless a search was answered just now, else searches: for all parts, from encoder to reranker."""
        if self._clock() - self._answered_s < PROOF_AGE_S:
            return
        self._probes += 1
        probe = self.search_batch([Query(f"health probe {self._probes}")])  # a new text each time: not from the cache
        await asyncio.wait_for(probe, PROBE_TIMEOUT_S)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self(Request(scope, receive)))(scope, receive, send)

    async def __call__(self, request: Request) -> Response:
        """HTTP. 400 and 413 name what is over which limit; whoever listens answers 503 when too many wait.

        With a token set, all but `/healthz` is 401 without `Authorization: Bearer <token>`.
        """
        route = (request.method, request.url.path)
        if route == ("GET", "/healthz"):
            return await self._healthz()
        if not authorised(request.headers.get("authorization", ""), self._token):
            return PlainTextResponse("expected 'Authorization: Bearer <token>' with this server's token\n", 401)
        if route != ("POST", "/retrieve"):
            return PlainTextResponse("expected POST /retrieve or GET /healthz\n", 404)
        body = await _read(request)
        if body is None:
            return PlainTextResponse(f"the body is over {MAX_BODY_BYTES} bytes: send several calls\n", 413)
        try:
            wanted = parse_retrieve(body, self._config)
            self._pipeline.check_top_k(wanted.top_k, wanted.top_k_retrieve)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        queries = [Query(q, wanted.top_k, wanted.top_k_retrieve, wanted.retrieval_order) for q in wanted.queries]
        found = await asyncio.gather(*(self._together(query) for query in queries))
        return JSONResponse(retrieve_response(found, wanted.return_scores))

    async def _healthz(self) -> Response:
        try:
            await self._prove()
        except Exception:
            logger.exception("search: not ready")  # to the log, not to whoever asks: this path needs no token
            return PlainTextResponse("not ready\n", 503)
        return PlainTextResponse("ok\n")

    @serve.batch  # type: ignore[untyped-decorator]
    async def _together(self, queries: list[Query]) -> list[Ranked]:
        return await self.search_batch(queries)

    async def search_batch(self, queries: list[Query]) -> list[Ranked]:
        """Documents for each query as it asks, in the worker's thread; what fails ends readiness."""
        if not self._batches:
            self._moved_s = self._clock()
        self._batches += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._worker, self._search, queries)
        except Exception:
            logger.exception("search: a batch of %d queries failed", len(queries))
            self._answered_s, self._moved_s = -math.inf, self._clock()
            raise
        finally:
            self._batches -= 1  # also when it was cancelled, which moves nothing
        self._answered_s = self._moved_s = self._clock()
        return found

    def _search(self, queries: list[Query]) -> list[Ranked]:
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


def pipeline_of(
    documents: Sequence[Document], config: SearchConfig, cache_dir: str, shards: Sequence[Any]
) -> SearchPipeline:
    """The pipeline of one replica, over the shards' handles where the index lies in shards."""
    if not shards:
        return build_pipeline(documents, config, cache_dir)
    encoder = Encoder(config)
    nearest = nearest_of_shards(shards, documents, config, encoder)
    return build_pipeline(documents, config, cache_dir, encoder=encoder, nearest=nearest)


async def _read(request: Request) -> bytes | None:
    """The body, or None as soon as it is over the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
