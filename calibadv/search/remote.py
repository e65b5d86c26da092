"""Search by HTTP: our agent with Search-R1's or CalibAdv's own retrieval server, or with ours on another cluster."""

from __future__ import annotations

import os
from typing import Any

import httpx

from calibadv.data.corpus import passage_id
from calibadv.search.client import RetryingSearch, RetryPolicy
from calibadv.types import Document

SHAPES = ("search_r1", "calibadv")


def retrieve_request(shape: str, query: str, top_k_retrieve: int, top_k: int) -> dict[str, Any]:
    """The JSON of one query. Search-R1's shape has one top-k: how many are retrieved first is its server's business."""
    queries = [query.encode("utf-8", "replace").decode()]  # a lone surrogate cannot be sent
    if shape == "search_r1":
        return {"queries": queries, "topk": top_k, "return_scores": True}
    counts = {"topk_retrieval": top_k_retrieve, "topk_rerank": top_k}
    return {"queries": queries, **counts, "return_scores": True, "not_sort": False}


def http_search(
    url: str,
    *,
    shape: str = "search_r1",
    top_k_retrieve: int = 20,
    top_k: int = 3,
    token_env: str = "",
    policy: RetryPolicy | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> RetryingSearch:
    """A `SearchFn` over `POST url`, retried as `policy` says; then `SearchFailed`.

    `token_env` names the environment variable whose value is sent as a bearer token. Raises `ValueError` for an unknown
    shape, and for a variable that is not set. `transport` is for tests.
    """
    if shape not in SHAPES:
        raise ValueError(f"request shape {shape!r} is not known; expected one of {SHAPES}")
    token = os.environ.get(token_env, "") if token_env else ""
    if token_env and not token:
        raise ValueError(
            f"token_env = {token_env!r}, but there is no such environment variable: set it, or leave it out"
        )
    policy = policy or RetryPolicy()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    client = httpx.AsyncClient(headers=headers, timeout=policy.timeout_s, transport=transport)

    async def call(query: str) -> tuple[Document, ...]:
        reply = await client.post(url, json=retrieve_request(shape, query, top_k_retrieve, top_k))
        if reply.status_code != httpx.codes.OK:
            raise RuntimeError(f"{url} answered {reply.status_code}: {reply.text[:200]}")
        found = parse_result(reply.json())
        if len(found) != 1:
            raise ValueError(f"{url} answered {len(found)} lists of documents to one query; expected 1")
        return found[0]

    return RetryingSearch(call, policy)


def parse_result(body: Any) -> list[tuple[Document, ...]]:
    """The documents of `{"result": [[...], ...]}`, a tuple a query. An entry is a document, or one with its score.

    A document has `title` and `text`, or `contents` with the quoted title on its first line; without an `id` it gets
    `passage_id`. Raises `ValueError` naming what else it is.
    """
    try:
        return [tuple(_document(entry) for entry in entries) for entries in body["result"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
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
    own_id = fields.get("id")
    doc_id = passage_id(title, text) if own_id is None else str(own_id)
    return Document(doc_id, title, text, float(entry.get("score", 0.0)))
