"""An MCP server of a library: tools that find documents, each in another form."""

from __future__ import annotations

import json
import os
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("library")

BOOKS = [
    {"id": 7, "title": "Oslo", "text": "Oslo is the capital of Norway.", "score": 0.5},
    {"id": 8, "title": "Ada", "text": "Ada was born in London.", "score": 0.25},
]


@server.tool()
def search(query: str, limit: int = 10) -> list[dict[str, Any]]:
    """The books that share a word with the query."""
    words = set(query.lower().split())
    return [book for book in BOOKS if words & set(str(book["text"]).lower().split())][:limit]


@server.tool()
def pages(question: str) -> dict[str, Any]:
    """As many search engines answer."""
    return {"web": {"pages": [{"url": "a", "name": question, "snippets": ["one.", "two."]}]}}


@server.tool(structured_output=False)
def as_json(query: str) -> str:
    """A list, as text."""
    return json.dumps(search(query))


@server.tool(structured_output=False)
def as_texts(query: str) -> list[str]:
    """Texts alone."""
    return [f"{query} one", f"{query} two"]


@server.tool()
def broken(query: str) -> list[dict[str, Any]]:
    """Has no index."""
    raise ToolError(f"no index for {query}")


@server.tool()
def ends(query: str) -> list[dict[str, Any]]:
    """Ends its server in the middle of the first call."""
    flag = os.environ["LIBRARY_FLAG"]
    if not os.path.exists(flag):
        open(flag, "w").close()
        os._exit(1)
    return search(query)


if __name__ == "__main__":
    server.run()
