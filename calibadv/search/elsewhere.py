"""Which search is asked where the run has none of its own: a function, an MCP server's tool, PostgreSQL, or HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from calibadv.search.client import RetryingSearch
from calibadv.search.mcp_api import mcp_api_of
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig
from calibadv.search.tool import load_tool, tool_search


def search_elsewhere(config: SearchConfig) -> Callable[[], RetryingSearch]:
    """What makes the search in the process that will ask it. ValueError for a function that there is not."""
    if config.tool:
        return partial(tool_search, config, load_tool(config))
    return partial(_of_server, config)


def named(config: SearchConfig) -> str:
    """The setting that names it, with its value."""
    if config.tool:
        return f"search.tool = {config.tool!r}"
    if config.mcp:
        return f"search.mcp = {mcp_api_of(config.mcp).place!r}"
    return f"search.url = {config.url!r}"


def _of_server(config: SearchConfig) -> RetryingSearch:
    if config.mcp:
        from calibadv.search.mcp_server import mcp_search  # extras: only where they are asked for

        return mcp_search(config)
    if config.url_shape == "pgvector":
        from calibadv.search.pgvector import pgvector_search

        return pgvector_search(config)
    return http_search(config)
