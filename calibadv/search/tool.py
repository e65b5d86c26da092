"""The user's own search function as the search tool (`search.tool`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calibadv.search.client import RetryingSearch, RetryPolicy
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from calibadv.user_code import called, load

ToolFn = Callable[[str, int], Any]
"""(query, k) -> documents, best first, each a `Document` or a mapping with id, title and text; it may be async."""


def load_tool(config: SearchConfig) -> ToolFn:
    """The function that `search.tool` names. ValueError if there is none."""
    function: ToolFn = load(config.tool, "search.tool")
    if not callable(function):
        raise ValueError(f"search.tool = {config.tool!r} is no function: it is {function!r}")
    return function


def tool_search(config: SearchConfig, function: ToolFn) -> RetryingSearch:
    """A `SearchFn` over the function, retried as the configuration says; then `SearchFailed`.

    A function that is not asynchronous is called in a thread: it may wait for a server, and other rollouts go on.
    """

    async def call(query: str) -> tuple[Document, ...]:
        return documents_of(await called(function, query, config.top_k), config)[: config.top_k]

    return RetryingSearch(call, RetryPolicy(config.timeout_s, config.patience_s), normal=config.cut)


def documents_of(found: Any, config: SearchConfig) -> tuple[Document, ...]:
    """What the function returned, as documents. ValueError for anything else."""
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise ValueError(f"search.tool = {config.tool!r} returned {type(found).__name__}, expected a list of documents")
    return tuple(map(_document, found))


def _document(given: Any) -> Document:
    if isinstance(given, Document):
        return given
    if isinstance(given, Mapping) and {"id", "title", "text"} <= given.keys():
        return Document(str(given["id"]), str(given["title"]), str(given["text"]), float(given.get("score", 0.0)))
    raise ValueError(f"expected documents, or mappings with id, title and text; got {given!r:.200}")
