"""Search by a tool of an MCP server (`[search.mcp]`; the `mcp` package)."""

from __future__ import annotations

from typing import Any

from calibadv.json_lines import json_value
from calibadv.rollout.mcp_tools import answered, refuses
from calibadv.rollout.tools import ToolConfig
from calibadv.search.client import Refused, RetryingSearch, RetryPolicy
from calibadv.search.json_api import filled, from_environment
from calibadv.search.mcp_api import mcp_api_of
from calibadv.search.remote import engine_documents
from calibadv.search.settings import SearchConfig
from calibadv.types import Document


def mcp_search(config: SearchConfig, policy: RetryPolicy | None = None) -> RetryingSearch:
    """A `SearchFn` over the tool that `config.mcp` names, retried as the configuration says; then `SearchFailed`.

    What the tool itself calls an error is tried again as well: it says the same of a bad query and of an engine of its
    own that is down.
    """
    api = mcp_api_of(config.mcp)
    arguments = from_environment(api.arguments, "mcp.arguments")
    policy = policy or RetryPolicy(config.timeout_s, config.patience_s)
    server = ToolConfig(command=api.command, env=api.env, url=api.url, timeout_s=policy.timeout_s)

    async def call(query: str) -> tuple[Document, ...]:
        try:
            result = await answered(server, api.tool, filled(arguments, {"query": query, "k": config.top_k}))
        except Exception as error:
            if refuses(error):
                raise Refused(f"the MCP tool {api.tool}: {error}") from error
            raise
        texts = [block.text for block in result.content if block.type == "text"]
        if result.is_error:
            raise ValueError(f"the MCP tool {api.tool} says: {' '.join(texts):.200}")
        found = texts if result.structured_content is None else result.structured_content
        return engine_documents(_json(found), api.reading)[: config.top_k]

    return RetryingSearch(call, policy, normal=config.cut)


def _json(found: Any) -> Any:
    """What the tool returned: as it is structured, or what its one text is the JSON of, or its texts as a list."""
    if not isinstance(found, list):
        return found
    if len(found) == 1:
        try:
            value = json_value(found[0])
        except ValueError:
            pass
        else:
            return value if isinstance(value, dict) else {"result": value}
    return {"result": found}
