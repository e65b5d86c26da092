"""The agent as an MCP server, asked by the official client over HTTP in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from calibadv.config.serve import ServeConfig
from serve.agent.app import Served, make_app
from tests.serve.world import Endless, InProcess, parts

HEADERS = {"Accept": "application/json, text/event-stream", "Authorization": "Bearer t"}


async def call(web: httpx.AsyncClient, method: str, **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    reply = await web.post("/mcp/", json=body, headers=HEADERS)
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
        assert (await web.post("/mcp/", json={})).status_code == 401
        tools = (await call(web, "tools/list"))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["ask", "search"]
        asked = await call(web, "tools/call", name="ask", arguments={"question": "Where was Ada born?"})
        answer = json.loads(asked["result"]["content"][0]["text"])
        assert answer["answer"] == "Oslo"
        assert [(one["id"], one["status"], one["rank"]) for one in answer["citations"]] == [("ada", "cited", 1)]
        found = await call(web, "tools/call", name="search", arguments={"query": "Ada"})
        assert found["result"]["structuredContent"]["result"][1]["id"] == "nils"
        long = await call(web, "tools/call", name="ask", arguments={"question": "x" * 5000})
        assert long["result"]["isError"]
        assert "at most 4000 are read" in long["result"]["content"][0]["text"]
