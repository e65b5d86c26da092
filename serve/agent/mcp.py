"""The agent as an MCP server with two tools: `ask` answers a question with citations, `search` only searches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import Response

from calibadv.types import Document, Trajectory
from serve.agent.citations import Citation
from serve.agent.items import annotation
from serve.agent.news import Busy, Interrupted
from serve.agent.requests import BadRequest
from serve.agent.responses import no_answer
from serve.agent.web import error

PATH = "/mcp"
ALLOW = {"Allow": "POST"}
_CITATION = ("title", "passage", "score", "status", "search", "rank")


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole rollout and what goes with its answer."""

    trajectory: Trajectory
    citations: tuple[Citation, ...]


def mount_mcp(
    app: FastAPI,
    ask: Callable[[str], Awaitable[Answered]],
    search: Callable[[str], Awaitable[tuple[Document, ...]]],
    about: str,
) -> None:
    """Puts the server at `PATH` of the app, whose lifespan it lives by."""
    mounted, own = mcp_app(ask, search, about), app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with own(app), mounted.router.lifespan_context(mounted):
            yield

    @app.get(PATH, include_in_schema=False)
    async def no_stream() -> Response:
        """A stream of the server's own news would stay open and hold a connection, and there are none: MCP says 405."""
        return error(405, "only POST: this server has no news of its own", "invalid_request_error", headers=ALLOW)

    app.router.lifespan_context = lifespan
    app.router.routes.extend(mounted.routes)  # a mount would have a slash at its end, which nobody's client writes


def mcp_app(
    ask: Callable[[str], Awaitable[Answered]], search: Callable[[str], Awaitable[tuple[Document, ...]]], about: str
) -> Starlette:
    """The server over streamable HTTP, at `PATH`. Each call stands by itself: no sessions.

    It answers as long as its lifespan lasts. ImportError without the extra `mcp`.
    """
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.server.transport_security import TransportSecuritySettings

    server = MCPServer("calibadv", instructions=about)

    @contextmanager
    def refusals() -> Iterator[None]:
        """In words: those of a `ToolError` alone reach the client."""
        try:
            yield
        except (BadRequest, Busy, Interrupted, TimeoutError) as refusal:
            raise ToolError(str(refusal)) from refusal

    @server.tool(name="ask")
    async def ask_agent(question: str) -> dict[str, Any]:
        """Answers one question, in words that stand by themselves, from the agent's documents, with citations."""
        with refusals():
            answered = await ask(question)
        notes = [annotation(one, answered.trajectory.answer or "") for one in answered.citations]
        return {
            "answer": answered.trajectory.answer,
            "why_not": no_answer(answered.trajectory),
            "citations": [{"id": note["file_id"], **{name: note[name] for name in _CITATION}} for note in notes],
        }

    @server.tool(name="search")
    async def search_documents(query: str) -> list[dict[str, Any]]:
        """Returns the passages that fit a query best, best first."""
        with refusals():
            found = await search(query)
        return [
            {"id": document.id, "title": document.title, "passage": document.text, "score": document.score}
            for document in found
        ]

    return server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the app around it has it
    )
