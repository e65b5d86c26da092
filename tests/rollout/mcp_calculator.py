"""An MCP server of a calculator: over its standard input, or over HTTP on the port that is given."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from mcp import MCPError
from mcp.server import MCPServer

server = MCPServer("calculator")
released = asyncio.Event()


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def told() -> str:
    """Says what two variables of its environment hold."""
    return ", ".join(os.environ.get(name, "nothing") for name in ("CALCULATOR_TOLD", "CALCULATOR_UNTOLD"))


@server.tool()
def end() -> str:
    """Ends the server in the middle of a call."""
    os._exit(1)


@server.tool()
async def wait() -> str:
    """Answers when `release` is called."""
    await released.wait()
    return "released"


@server.tool()
async def release() -> str:
    """Lets `wait` answer."""
    released.set()
    return "done"


@server.tool()
def fail() -> str:
    """Answers with an error of the protocol's."""
    raise MCPError(-32000, "no quota")


@server.tool()
def say(words: list[str]) -> str:
    """Says the words."""
    return " ".join(words)


@server.tool()
async def hang() -> str:
    """Answers nobody any more."""
    time.sleep(3600)  # noqa: ASYNC251 (in the server's loop)
    return ""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
