"""Search by HTTP: our agent with Search-R1's or CalibAdv's own retrieval server, or with ours on another cluster."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import httpx

from calibadv.data.corpus import passage_id
from calibadv.http_client import client_options, route_to
from calibadv.search.client import RetryingSearch, RetryPolicy
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

MAX_REPLY_BYTES = 8 * 2**20  # to one query: a hundred passages of 80 KB


def retrieve_request(config: SearchConfig, query: str) -> dict[str, Any]:
    """The JSON of one query. Search-R1's shape has one top-k: how many are retrieved first is its server's business."""
    queries = [query.encode("utf-8", "replace").decode()]  # a lone surrogate cannot be sent
    if config.url_shape == "search_r1":
        return {"queries": queries, "topk": config.top_k, "return_scores": True}
    counts = {"topk_retrieval": config.top_k_retrieve, "topk_rerank": config.top_k}
    return {"queries": queries, **counts, "return_scores": True, "not_sort": False}


def http_search(
    config: SearchConfig, policy: RetryPolicy | None = None, transport: httpx.AsyncBaseTransport | None = None
) -> RetryingSearch:
    """A `SearchFn` over `POST config.url`, retried as `policy` (the configuration's own) says; then `SearchFailed`.

    The value of the variable `config.token_env` is sent as a bearer token. Raises `ValueError` for a variable that is
    not set, and as `http_client.route_to` does. `transport` is for tests.
    """
    url, token = config.url, os.environ.get(config.token_env, "") if config.token_env else ""
    if config.token_env and not token:
        raise ValueError(
            f"token_env = {config.token_env!r}, but there is no such environment variable: set it, or leave it out"
        )
    policy = policy or RetryPolicy(config.timeout_s, config.patience_s)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    options = client_options(url, token=bool(token)) if transport is None else {}
    asked = f"{url}{route_to(url, token=bool(token))}"
    client = httpx.AsyncClient(headers=headers, timeout=policy.timeout_s, transport=transport, **options)

    async def call(query: str) -> tuple[Document, ...]:
        request = retrieve_request(config, query)
        try:
            async with client.stream("POST", url, json=request) as reply:
                body = await _read(reply)
        except httpx.HTTPError as error:
            raise RuntimeError(f"{asked} did not answer ({type(error).__name__} {error})") from error
        if reply.status_code != httpx.codes.OK:
            raise RuntimeError(f"{asked} answered {reply.status_code}: {body[:200].decode('utf-8', 'replace')}")
        found = parse_result(json.loads(body))
        if len(found) != 1:
            raise ValueError(f"{url} answered {len(found)} lists of documents to one query; expected 1")
        return found[0][: config.top_k]

    return RetryingSearch(call, policy)


async def _read(reply: httpx.Response) -> bytes:
    """The body. `ValueError` as soon as it is over the limit: a server that never ends must not fill the memory."""
    body = bytearray()
    async for chunk in reply.aiter_bytes():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise ValueError(f"{reply.url} answered more than {MAX_REPLY_BYTES} bytes to one query")
    return bytes(body)


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
    fields = entry.get("document", entry)
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
    doc_id = passage_id(title, text) if own_id is None else str(own_id)
    return Document(doc_id, title, text, score)
