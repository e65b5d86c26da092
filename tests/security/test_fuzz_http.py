"""Hostile HTTP: whatever a caller sends to the search app, and whatever a search server answers to us."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryPolicy
from calibadv.search.remote import http_search, parse_result
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from serve.retriever import MAX_BODY_BYTES, SearchService
from tests.search.fakes import CORPUS

TOKEN = "right"
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=8,
)
NEAR_REQUESTS = st.fixed_dictionaries(
    {"queries": st.one_of(st.lists(st.one_of(st.text(max_size=20), JSON), max_size=4), JSON)},
    optional={
        "topk": st.one_of(st.integers(-3, 200), JSON),
        "topk_retrieval": st.one_of(st.integers(-3, 200), JSON),
        "topk_rerank": st.one_of(st.integers(-3, 200), JSON),
        "return_scores": st.one_of(st.booleans(), JSON),
        "not_sort": st.one_of(st.booleans(), JSON),
        "extra": JSON,
    },
)
BODIES = st.one_of(st.binary(max_size=200), JSON.map(lambda v: json.dumps(v).encode()), NEAR_REQUESTS.map(json.dumps))


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchService:
    monkeypatch.setenv("TOKEN_OF_THIS_TEST", TOKEN)
    config = SearchConfig(retriever="bm25", reranker="none", batch_wait_s=0.0, token_env="TOKEN_OF_THIS_TEST")
    search = SearchService(lambda: CORPUS, config, str(tmp_path))

    async def alone(query: Any) -> Any:  # Serve's batching asks for the replica that it is in
        return (await search.search_batch([query]))[0]

    monkeypatch.setattr(search, "_together", alone)
    return search


async def ask(
    service: SearchService, method: str, path: str, chunks: list[bytes], headers: list[tuple[bytes, bytes]]
) -> tuple[Response, int]:
    """The response, and how many bytes of the body were taken."""
    left, taken = list(chunks), 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        chunk = left.pop(0) if left else b""
        taken += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
    return await service(Request(scope, receive)), taken


def authorised(token: str = TOKEN) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


@given(body=BODIES)
@example(body=b"[" * 100_000)
@example(body=b'{"queries": ["' + b"a" * 3000 + b'"]}')
@example(body=b'{"queries": ["\\ud800"]}')
@example(body=b'{"queries": ["a"], "topk": 1' + b"0" * 5000 + b"}")
@example(body=b'{"queries": ["a"], "topk": NaN}')
@example(body=b'{"queries": ["a", "a"], "queries": []}')
@example(body=json.dumps({"\ud800": 1, "queries": []}).encode())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_body_is_answered_or_refused_in_words(service: SearchService, body: bytes | str) -> None:
    raw = body.encode() if isinstance(body, str) else body
    response, _ = await ask(service, "POST", "/retrieve", [raw], authorised())
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert response.body.endswith(b"\n")
        return
    asked = json.loads(raw)
    found = parse_result(json.loads(response.body))
    assert len(found) == len(asked["queries"])
    assert all(len(documents) <= 100 for documents in found)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "HEAD"]),
    path=st.one_of(
        st.sampled_from(["/", "/retrieve", "//retrieve", "/retrieve/", "/healthz", "/../healthz"]), st.text()
    ),
    header=st.one_of(st.binary(max_size=40), st.sampled_from([b"Bearer ", b"Bearer wrong", b"Basic right", b"right"])),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_without_the_token_only_readiness_answers(
    service: SearchService, method: str, path: str, header: bytes
) -> None:
    response, taken = await ask(service, method, path, [b'{"queries": ["a"]}'], [(b"authorization", header)])
    expected = 200 if (method, path) == ("GET", "/healthz") else 401
    assert response.status_code == expected
    assert taken == 0  # nobody is read before they are known


@given(path=st.text(max_size=20), method=st.sampled_from(["GET", "POST", "PUT"]))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_with_the_token_every_other_path_is_not_there(service: SearchService, method: str, path: str) -> None:
    response, _ = await ask(service, method, f"/x{path}", [b""], authorised())
    assert response.status_code == 404


async def test_a_body_without_end_is_left_at_its_limit(service: SearchService) -> None:
    chunk = b"x" * 2**18
    response, taken = await ask(service, "POST", "/retrieve", [chunk] * 1000, authorised())
    assert response.status_code == 413
    assert taken <= MAX_BODY_BYTES + len(chunk)


async def test_a_refusal_is_short_whatever_was_sent(service: SearchService) -> None:
    body = json.dumps({"queries": ["a"], **{f"field{i}": "x" * 50 for i in range(5000)}}).encode()
    response, _ = await ask(service, "POST", "/retrieve", [body], authorised())
    assert response.status_code == 400
    assert len(response.body) < 2000


# ---- a hostile search server -------------------------------------------------------------------------------------

DOCUMENTS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {}, optional={"id": JSON, "title": JSON, "text": JSON, "contents": st.one_of(st.text(max_size=10), JSON)}
    ),
)
ENTRIES = st.one_of(DOCUMENTS, st.fixed_dictionaries({"document": DOCUMENTS}, optional={"score": JSON}))
REPLIES = st.one_of(JSON, st.fixed_dictionaries({"result": st.lists(st.lists(ENTRIES, max_size=6), max_size=3)}))


def answer_to(content: bytes, top_k: int = 3) -> tuple[Document, ...] | None:
    """What rollouts would get of a server that answers so; None where the search failed."""

    async def search() -> tuple[Document, ...]:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=content))
        policy = RetryPolicy(patience_s=0.0)
        return await http_search(SearchConfig(url="http://127.0.0.1:9", top_k=top_k), policy, transport)("who?")

    try:
        return asyncio.run(search())
    except SearchFailed:
        return None


@given(reply=REPLIES)
@example(reply={"result": [[{"id": 1, "text": 5}]]})
@example(reply={"result": [[{"id": 1, "title": None, "text": "x"}]]})
@example(reply={"result": [[{"id": "d", "text": "x", "score": float("nan")}]]})
@settings(max_examples=150, deadline=None)
def test_any_reply_is_documents_of_text_or_a_failed_search(reply: Any) -> None:
    for document in answer_to(json.dumps(reply).encode()) or ():
        assert (type(document.id), type(document.title), type(document.text)) == (str, str, str)
        assert document.score == document.score


@given(content=st.binary(max_size=100))
@example(content=b"[" * 100_000)
@example(content=b'{"result": ' + b"1" * 5000 + b"}")
@settings(max_examples=50, deadline=None)
def test_a_reply_that_is_no_json_is_a_failed_search(content: bytes) -> None:
    assert answer_to(content) is None


def test_more_documents_than_were_asked_for_are_left_out() -> None:
    reply = {"result": [[{"id": str(i), "text": "x"} for i in range(50)]]}
    found = answer_to(json.dumps(reply).encode())
    assert found is not None
    assert [document.id for document in found] == ["0", "1", "2"]


def test_a_reply_without_end_is_a_failed_search() -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 64 * 2**20:
            sent += 2**16
            yield b" " * 2**16

    async def search() -> tuple[Document, ...]:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=endless()))
        return await http_search(SearchConfig(url="http://127.0.0.1:9"), RetryPolicy(patience_s=0.0), transport)("who?")

    with pytest.raises(SearchFailed):
        asyncio.run(search())
    assert sent < 16 * 2**20
