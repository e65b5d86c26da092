"""The agent as an MCP server, asked by the official client over HTTP in this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from calibadv.config.serve import ServeConfig
from calibadv.types import Document
from serve.agent.app import Served, make_app
from tests.rollout.scripted import Library
from tests.serve.world import Endless, InProcess, parts

HEADERS = {"Accept": "application/json, text/event-stream", "Authorization": "Bearer t"}


async def call(web: httpx.AsyncClient, method: str, **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    reply = await web.post("/mcp", json=body, headers=HEADERS)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_its_tools_ask_and_search_behind_the_same_token(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    served = Served("tiny", ServeConfig(), tmp_path / "feedback.jsonl", token="t")
    app = make_app(served, InProcess(parts(Endless())))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as web,
    ):
        assert (await web.post("/mcp", json={})).status_code == 401
        tools = (await call(web, "tools/list"))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["ask", "search"]
        asked = await call(web, "tools/call", name="ask", arguments={"question": "Where was Ada born?"})
        answer = json.loads(asked["result"]["content"][0]["text"])
        assert answer["answer"] == "Oslo"
        assert [(one["id"], one["status"], one["rank"]) for one in answer["citations"]] == [("ada", "cited", 1)]
        found = await call(web, "tools/call", name="search", arguments={"query": "Ada"})
        assert found["result"]["structuredContent"]["result"][1]["id"] == "nils"
        for tool, argument in (("ask", "question"), ("search", "query")):
            long = await call(web, "tools/call", name=tool, arguments={argument: "x" * 5000})
            assert long["result"]["isError"]
            assert "at most 4000 are read" in long["result"]["content"][0]["text"]


async def test_half_a_character_of_a_document_is_answered_with(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    library = Library((Document("ada", "Ada", "Ada was born in Oslo \ud83d", 0.5),))
    app = make_app(Served("tiny", ServeConfig(), tmp_path / "feedback.jsonl"), InProcess(parts(Endless(), library)))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as web,
    ):
        for tool, argument in (("ask", "question"), ("search", "query")):
            reply = await call(web, "tools/call", name=tool, arguments={argument: "Where was Ada born?"})
            assert not reply["result"].get("isError")
            assert "Ada was born in Oslo ?" in reply["result"]["content"][0]["text"]


async def test_a_search_takes_a_place_and_no_longer_than_an_answer(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    answerer, begun, told = InProcess(parts(Endless())), asyncio.Event(), asyncio.Event()

    async def slow(_query: str) -> tuple[Document, ...]:
        begun.set()
        await told.wait()
        return ()

    answerer.search = slow
    settings = ServeConfig(max_concurrent=1, timeout_s=0.5)
    app = make_app(Served("tiny", settings, tmp_path / "feedback.jsonl", token="t"), answerer)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as web,
    ):
        first = asyncio.create_task(call(web, "tools/call", name="search", arguments={"query": "Ada"}))
        await begun.wait()
        second = await call(web, "tools/call", name="search", arguments={"query": "Ada"})
        assert "no place for another" in second["result"]["content"][0]["text"]
        late = await first
        assert "took longer than 0.5 s" in late["result"]["content"][0]["text"]
