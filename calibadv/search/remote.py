"""Search by HTTP: a retrieval server (Search-R1's, CalibAdv's or ours), or a search engine's JSON API."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from calibadv.data.corpus import passage_id
from calibadv.data.record import as_whole
from calibadv.http_client import client_options, route_to
from calibadv.retries import in_words
from calibadv.search.client import Busy, Refused, RetryingSearch, RetryPolicy
from calibadv.search.json_api import ABSENT, SHIPPED, JsonApi, api_of, at, filled, from_environment
from calibadv.search.settings import SearchConfig
from calibadv.sendable import sendable
from calibadv.types import Document

MAX_REPLY_BYTES = 8 * 2**20  # to one query: a hundred passages of 80 KB
# 404 is not among them: a collection may be on its way.
_REFUSED = {400, 401, 402, 403, 405, 411, 413, 414, 415, 422, 431}
_ASKS_TO_WAIT = {429, 503}

Vector = Callable[[str], list[float]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server is spoken to: arguments of httpx for a query, and the documents of an answer."""

    method: str
    headers: Mapping[str, str]
    request: Callable[[str], Awaitable[dict[str, Any]]]
    documents: Callable[[Any], tuple[Document, ...]]


def http_search(
    config: SearchConfig, policy: RetryPolicy | None = None, transport: httpx.AsyncBaseTransport | None = None
) -> RetryingSearch:
    """A `SearchFn` over `config.url`, retried as `policy` (the configuration's own) says; then `SearchFailed`.

    The value of the variable `config.token_env` is sent as a bearer token. Raises `ValueError` for a variable that is
    not set, and as `http_client.route_to` does. `transport` is for tests.
    """
    url, token = config.url, token_of(config)
    policy = policy or RetryPolicy(config.timeout_s, config.patience_s)
    dialect = engine_dialect(config) if config.url_shape in SHIPPED else server_dialect(config)
    headers = {**dialect.headers, **({"Authorization": f"Bearer {token}"} if token else {})}
    options = client_options(url, token=config.sends_secret) if transport is None else {}
    asked = f"{url}{route_to(url, token=config.sends_secret)}"
    # `search.concurrency` says how many calls are in flight: a call that waited for httpx's pool would be out of time.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(headers=headers, timeout=policy.timeout_s, limits=limits, transport=transport, **options)

    async def call(query: str) -> tuple[Document, ...]:
        request = await dialect.request(query)
        try:
            async with client.stream(dialect.method, url, **request) as reply:
                body = await _read(reply, url)
        except httpx.HTTPError as error:
            raise RuntimeError(f"{asked} did not answer ({in_words(error)})") from error
        if reply.status_code != httpx.codes.OK:
            _fail(reply, f"{asked} answered {reply.status_code}: {body[:200].decode('utf-8', 'replace')}")
        return dialect.documents(json.loads(body))[: config.top_k]

    return RetryingSearch(call, policy, normal=config.cut)


def token_of(config: SearchConfig) -> str:
    """The value of the variable that `config.token_env` names, "" where it names none. ValueError for one not set."""
    token = os.environ.get(config.token_env, "") if config.token_env else ""
    if config.token_env and not token:
        raise ValueError(
            f"token_env = {config.token_env!r}, but there is no such environment variable: set it, or leave it out"
        )
    return token


def _fail(reply: httpx.Response, words: str) -> None:
    if reply.status_code in _REFUSED:
        raise Refused(words)
    asked_to_wait = reply.headers.get("retry-after", "")
    if reply.status_code in _ASKS_TO_WAIT and asked_to_wait.isdecimal():
        raise Busy(words, float(asked_to_wait))
    raise RuntimeError(words)


async def _read(reply: httpx.Response, url: str) -> bytes:
    """The body. `ValueError` as soon as it is over the limit: a server that never ends must not fill the memory."""
    body = bytearray()
    async for chunk in reply.aiter_bytes():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise ValueError(f"{url} answered more than {MAX_REPLY_BYTES} bytes to one query")
    return bytes(body)


# ---- a search engine -------------------------------------------------------------------------------------------------


def engine_dialect(config: SearchConfig) -> Dialect:
    """That of the search engine's API that `url_shape` and `http` describe. ValueError for a variable that is not set.

    Where the API asks for vectors, `config.encoder` is loaded.
    """
    api = api_of(config.url_shape, config.http)
    fixed, fixed_body = from_environment(api.parameters, "http.parameters"), from_environment(api.body, "http.body")
    vector_of = query_vector(config) if api.needs_vector else None

    async def request(query: str) -> dict[str, Any]:
        values: dict[str, Any] = {"query": query, "k": config.top_k}
        if vector_of is not None:
            values["vector"] = await asyncio.to_thread(vector_of, query)
        body = {"json": filled(fixed_body, values)} if api.method == "POST" else {}
        return body | ({"params": filled(fixed, values)} if fixed else {})

    return Dialect(
        api.method, from_environment(api.headers, "http.headers"), request, lambda body: engine_documents(body, api)
    )


def engine_documents(body: Any, api: JsonApi) -> tuple[Document, ...]:
    """The documents of an answer. A result without any text and title is left out.

    Raises `ValueError` for an answer that is not whole, and for one whose list, or all of whose texts, are elsewhere.
    """
    results = at(body, api.results)
    if not isinstance(results, list):
        raise ValueError(f"the search engine answered {str(body)[:200]!r}; expected a list at {api.results!r}")
    for path, whole in {**api.require, **({} if results else api.require_if_empty)}.items():
        if (said := at(body, path)) is not ABSENT and said != whole:
            raise ValueError(f"the search engine's answer is not whole: {path} is {said!r:.200}, expected {whole!r}")
    read = [
        (result, _text(at(result, api.title) if api.title else ABSENT), _text(at(result, api.text)))
        for result in results
    ]
    if results and all(at(result, api.text) is ABSENT for result in results):
        raise ValueError(
            f"no result has a text at {api.text!r}, the first is {str(results[0])[:200]!r}: mend where it is (text)"
        )
    return tuple(_of_engine(result, title, text, api) for result, title, text in read if title or text)


def _of_engine(result: Any, title: str, text: str, api: JsonApi) -> Document:
    own_id = at(result, api.id) if api.id else ABSENT
    if own_id is ABSENT or own_id is None:
        own_id = passage_id(title, text)
    score = at(result, api.score) if api.score else ABSENT
    if not isinstance(own_id, str | int | float):
        raise ValueError(f"a result's identity at {api.id!r} is {own_id!r:.200}, expected a text or a number")
    known = float(score) if isinstance(score, int | float) else 0.0
    return Document(str(as_whole(own_id)), title, text, known if math.isfinite(known) else 0.0)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if value is ABSENT or value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise ValueError(f"expected a text, the search engine gave {value!r:.200}")
    return sendable(str(value))  # here: its digest may become an identity


def query_vector(config: SearchConfig) -> Vector:
    """A query's vector by `config.encoder`, which is loaded here."""
    from calibadv.search.encoder import Encoder

    encoder = Encoder(config)
    return lambda query: [float(number) for number in encoder.encode_queries([query]).vectors[0]]


# ---- a retrieval server ----------------------------------------------------------------------------------------------


def server_dialect(config: SearchConfig) -> Dialect:
    """That of Search-R1's and CalibAdv's retrieval servers."""

    async def request(query: str) -> dict[str, Any]:
        return {"json": retrieve_request(config, query)}

    def documents(body: Any) -> tuple[Document, ...]:
        found = parse_result(body)
        if len(found) != 1:
            raise ValueError(f"{config.url} answered {len(found)} lists of documents to one query; expected 1")
        return found[0]

    return Dialect("POST", {}, request, documents)


def retrieve_request(config: SearchConfig, query: str) -> dict[str, Any]:
    """The JSON of one query. Search-R1's shape has one top-k: how many are retrieved first is its server's business."""
    if config.url_shape == "search_r1":
        return {"queries": [query], "topk": config.top_k, "return_scores": True}
    counts = {"topk_retrieval": config.top_k_retrieve, "topk_rerank": config.top_k}
    return {"queries": [query], **counts, "return_scores": True, "not_sort": False}


def parse_result(body: Any) -> list[tuple[Document, ...]]:
    """The documents of `{"result": [[...], ...]}`, a tuple a query. An entry is a document, or one with its score.

    A document has `title` and `text`, or `contents` with the quoted title on its first line; without an `id` it gets
    `passage_id`. Raises `ValueError` naming what else it is.
    """
    try:
        return [tuple(_document(entry) for entry in entries) for entries in body["result"]]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"the search server answered {str(body)[:200]!r} ({error!r}); expected "
            '{"result": [[{"document": {"contents": ...}, "score": ...}]]}: is this the URL of a retrieval server?'
        ) from error


def _document(entry: dict[str, Any]) -> Document:
    fields = sendable(entry.get("document", entry))
    if "contents" in fields and not fields.get("text"):
        head, _, text = fields["contents"].partition("\n")
        title = head.strip().removeprefix('"').removesuffix('"')
    else:
        title, text = fields.get("title", ""), fields["text"]
    own_id, score = fields.get("id"), float(entry.get("score", 0.0))
    if not (isinstance(title, str) and isinstance(text, str)) or isinstance(own_id, list | dict):
        raise TypeError("title and text must be strings, an id a string or a number")
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")
    doc_id = passage_id(title, text) if own_id is None else str(as_whole(own_id))
    return Document(doc_id, title, text, score)
