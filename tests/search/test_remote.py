"""The HTTP client against our own wire format, Search-R1's answers, and servers that are none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from calibadv.data.corpus import passage_id
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryPolicy
from calibadv.search.remote import http_search, parse_result
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from serve.wire import RetrieveRequest, parse_retrieve, retrieve_response

OSLO = Document("d4", "Oslo", "Oslo is a harbour town.", 0.5)
ONCE = RetryPolicy(patience_s=0.0)
MAPPING = {"body": {"q": "{query}"}, "results": "found", "title": "title", "text": "text"}


def answering(status: int, body: Any, seen: list[httpx.Request]) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body).encode())

    return httpx.MockTransport(answer)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("search_r1", RetrieveRequest(("who?",), 3, None, return_scores=True)),
        ("calibadv", RetrieveRequest(("who?",), 3, 20, return_scores=True)),
    ],
)
async def test_our_server_understands_both_shapes_and_our_client_its_answer(
    shape: str, expected: RetrieveRequest
) -> None:
    seen: list[httpx.Request] = []
    transport = answering(200, retrieve_response([[OSLO]], return_scores=True), seen)
    search = http_search(SearchConfig(url="http://h/retrieve").but(url_shape=shape), transport=transport)
    assert await search("who?") == (OSLO,)
    assert parse_retrieve(seen[0].content, SearchConfig()) == expected


def test_search_r1s_own_answer_has_contents_and_perhaps_no_score_or_id() -> None:
    first = {"document": {"id": 7.0, "contents": '"Oslo"\nA town.'}, "score": 0.25}
    body = {"result": [[first], [{"contents": "A\nb"}]]}
    assert parse_result(body) == [
        (Document("7", "Oslo", "A town.", 0.25),),
        (Document(passage_id("A", "b"), "A", "b"),),
    ]


@pytest.mark.parametrize("body", [{}, [], {"result": None}, {"result": [[{"title": "t"}]]}, {"result": [["text"]]}])
def test_an_answer_of_another_kind_is_named(body: Any) -> None:
    with pytest.raises(ValueError, match=r"the search server answered .*is this the URL of a retrieval server"):
        parse_result(body)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b"busy", "answered 503: busy"),
        (200, b"<html>", "Expecting value"),
        (200, {"result": []}, "0 lists of documents to one query"),
    ],
)
async def test_what_is_no_answer_is_search_failed(status: int, body: Any, said: str) -> None:
    search = http_search(SearchConfig(url="http://h/retrieve"), ONCE, answering(status, body, []))
    with pytest.raises(SearchFailed, match=said):
        await search("who?")


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ({}, rb'{"result": [[{"title": "T", "text": "good \ud83d"}]]}'),
        ({"url_shape": "json", "http": MAPPING}, rb'{"found": [{"title": "T", "text": ["good", "\ud83d"]}]}'),
    ],
)
async def test_half_a_character_in_an_answer_without_identities_is_a_question_mark(
    shape: dict[str, Any], body: bytes
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    found = await http_search(SearchConfig(url="http://h/find", **shape), ONCE, transport)("who?")
    assert found == (Document(passage_id("T", "good ?"), "T", "good ?"),)


async def test_the_token_is_sent_and_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    transport = answering(200, {"result": [[]]}, seen)
    config = SearchConfig(url="http://h", token_env="MY_TOKEN")
    assert await http_search(config, transport=transport)("\ud800") == ()
    assert seen[0].headers["authorization"] == "Bearer s3cret"
    assert json.loads(seen[0].content)["queries"] == ["?"]
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(ValueError, match="token_env = 'MY_TOKEN', but there is no such environment variable"):
        http_search(config)


async def test_an_over_long_query_is_cut_before_a_server_can_refuse_it() -> None:
    seen: list[httpx.Request] = []
    config = SearchConfig(url="http://h/retrieve", max_query_chars=20)
    await http_search(config, transport=answering(200, {"result": [[]]}, seen))("x" * 50)
    assert json.loads(seen[0].content)["queries"] == ["x" * 20]


async def test_calls_wait_for_no_connection() -> None:
    """More at once than httpx's pool has by itself: the server answers when all have arrived."""
    arrived, calls, body = asyncio.Semaphore(0), 150, json.dumps({"result": [[]]}).encode()
    all_there = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        arrived.release()
        await all_there.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, backlog=calls) as server:
        host, port = server.sockets[0].getsockname()
        search = http_search(SearchConfig(url=f"http://{host}:{port}", timeout_s=20.0, patience_s=0.0))
        asked = [asyncio.create_task(search(f"q{number}")) for number in range(calls)]
        async with asyncio.timeout(60):
            for _ in range(calls):
                await arrived.acquire()
        all_there.set()
        assert await asyncio.gather(*asked) == [()] * calls
