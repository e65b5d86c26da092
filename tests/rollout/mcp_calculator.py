"""An MCP server of a calculator: over its standard input, or over HTTP on the port that is given."""

from __future__ import annotations

import os
import sys

from mcp.server import MCPServer

server = MCPServer("calculator")


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


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
