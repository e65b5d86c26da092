"""Tools of an MCP server, started by a command or reached by its address (the `mcp` package).

A server is connected to once a process, by a task of its own: a connection must be closed where it was opened. All
calls share it, so that one that fails leaves it as it is; it is connected to anew where the connection ended, or gave
no answer at all within a call's time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

from calibadv.retries import in_words
from calibadv.rollout.protocols import Result
from calibadv.rollout.tools import KEY, Schema, ToolConfig, check_name, tried
from calibadv.sendable import sendable

try:
    from mcp import Client, MCPError, StdioServerParameters, stdio_client
    from mcp.client import Transport
    from mcp.types import INVALID_PARAMS, INVALID_REQUEST, CallToolResult
    from mcp.types import Tool as Offer
except ImportError as error:
    raise ValueError("an MCP server is named, and the package mcp is not installed: pip install mcp") from error

START_S = 60.0  # a server's start may take so long, or as long as a call where that is longer
END_S = 10.0  # for its end, before another is started
_WHOLE = 0.9  # of a call's time: whoever gave up later ran out of it


@dataclass(frozen=True)
class McpTool:
    """A `Tool` of a server."""

    config: ToolConfig
    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def schema(self) -> Schema:
        about = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": about}

    async def __call__(self, arguments: Mapping[str, Any]) -> Result:
        """The tool's text, also where it says that the call was wrong. Raises `ToolFailed`."""
        return await tried(self.config, self.name, arguments, self._call)

    async def _call(self, arguments: Mapping[str, Any]) -> str:
        try:
            return _text_of(await answered(self.config, self.name, arguments))
        except MCPError as error:
            if refuses(error):  # the policy's fault
                return f"Error: {error}"
            raise


async def answered(config: ToolConfig, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
    """What the server's tool gives, over the one connection of this process. Raises what went wrong."""
    connection, loop = _connection(config), asyncio.get_running_loop()
    begun_s = loop.time()
    try:
        client = await connection.client()
        result = await client.call_tool(name, sendable(dict(arguments)))
    except asyncio.CancelledError:  # out of time, or given up
        silent_s = loop.time() - max(begun_s, connection.heard_s)
        if connection.open and silent_s > _WHOLE * config.timeout_s:
            connection.close()
        raise
    except Exception as error:
        if _ended(error):
            connection.close()
        else:
            connection.heard_s = loop.time()
        raise
    connection.heard_s = loop.time()
    return result


def _ended(error: Exception) -> bool:
    """Whether the connection is over, and not this call alone."""
    if isinstance(error, MCPError):
        # An HTTP server that has started again; the package's words, for its code is one of servers' own errors too.
        return error.code == INVALID_REQUEST or str(error) == "Connection closed"
    return not isinstance(error, RuntimeError | ValueError)  # a result that is not as its tool says


def refuses(error: Exception) -> bool:
    """Whether the server is well and the call is wrong."""
    return isinstance(error, MCPError) and error.code == INVALID_PARAMS


def offered(config: ToolConfig) -> tuple[McpTool, ...]:
    """The tools that the server offers, or the one that is named. ValueError where it does not answer or has none."""
    found = _listed(config.model_copy(update={"name": ""}))
    tools = [
        McpTool(config, tool.name, tool.description or tool.name, tool.input_schema)
        for tool in found
        if config.name in ("", tool.name)
    ]
    if not tools:
        names = ", ".join(tool.name for tool in found) or "none"
        raise ValueError(f"{KEY}: the MCP server {_place(config)!r} has no tool {config.name!r}; it offers {names}")
    for tool in tools:
        check_name(tool.name)
    return tuple(tools)


def _start_s(config: ToolConfig) -> float:
    return max(START_S, config.timeout_s)


@cache
def _listed(config: ToolConfig) -> Sequence[Offer]:
    async def ask() -> Sequence[Offer]:
        async with asyncio.timeout(_start_s(config)), Client(_server(config)) as client:
            return (await client.list_tools()).tools

    try:
        with ThreadPoolExecutor(1) as thread:  # a loop may run in this one
            return thread.submit(asyncio.run, ask()).result()
    except Exception as error:
        cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        raise ValueError(f"{KEY}: the MCP server {_place(config)!r} does not answer ({in_words(cause)})") from error


class _Connection:
    def __init__(self, config: ToolConfig, before: _Connection | None) -> None:
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._given_up = False
        self.heard_s = float("-inf")  # when it last answered, in the loop's time
        self._task = asyncio.create_task(self._hold(config, before))

    async def client(self) -> Client:
        return await asyncio.shield(self._ready)

    @property
    def open(self) -> bool:
        return self._ready.done() and not self.closed

    @property
    def closed(self) -> bool:
        return self._given_up or self._task.done()

    def close(self) -> None:
        self._given_up = True  # before the task has ended
        self._task.cancel()

    async def _hold(self, config: ToolConfig, before: _Connection | None) -> None:
        try:
            if before is not None:  # a server that hangs is ended first: two might be in each other's way
                await asyncio.wait({before._task}, timeout=END_S)
            async with AsyncExitStack() as opened:
                async with asyncio.timeout(_start_s(config)):  # a call whose own time is over leaves it starting
                    client = await opened.enter_async_context(Client(_server(config)))
                self._ready.set_result(client)
                await asyncio.Event().wait()
        except Exception as error:
            self._fail(error)
        finally:
            self._fail(ConnectionError("the connection was closed"))

    def _fail(self, error: Exception) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # whether or not anybody waits for it


_connections: dict[tuple[int, ToolConfig], _Connection] = {}


def _connection(config: ToolConfig) -> _Connection:
    """The open connection of this event loop."""
    key = (id(asyncio.get_running_loop()), config)
    connection = _connections.get(key)
    if connection is None or connection.closed:
        _connections[key] = connection = _Connection(config, connection)
    return connection


def _server(config: ToolConfig) -> Transport | str:
    if config.url:
        return config.url
    command, *arguments = config.command
    given = {name: os.environ[name] for name in config.env if name in os.environ}
    # A notebook's sys.stderr, or one that is captured, is no file that a process could be given.
    return stdio_client(StdioServerParameters(command=command, args=arguments, env=given), sys.__stderr__ or sys.stderr)


def _place(config: ToolConfig) -> str:
    return config.url or " ".join(config.command)


def _text_of(result: CallToolResult) -> str:
    text = "\n".join(block.text for block in result.content if block.type == "text")
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    return f"Error: {text}" if result.is_error else text
