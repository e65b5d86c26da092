"""How a tool of an MCP server is asked and read as the search (`[search.mcp]`): data that a recipe holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from calibadv.search.json_api import JsonApi, api_from, check_no_secret
from calibadv.section import Decides, Section


class McpApi(Section):
    """A server, its tool, and where the documents are in what the tool gives."""

    decides: ClassVar[Decides] = Decides.RESULT

    command: tuple[str, ...] = ()
    """What starts a server that is spoken to through its standard input."""
    env: tuple[str, ...] = ()
    """Names of the environment variables that such a server is given."""
    url: str = ""
    """Address of a server that is up."""
    tool: str = "search"
    arguments: dict[str, Any] = Field(default_factory=lambda: {"query": "{query}"})
    """Of a call; "{query}" and "{k}" stand for the query and the number of documents, "$NAME" for a variable of the
    environment."""
    results: str = "result"
    """Where the list of results is: "result" is where the Python SDK puts what a function returns."""
    id: str = "id"
    title: str = "title"
    text: str = "text"
    """"" where the results are the texts themselves."""
    score: str = "score"

    @property
    def place(self) -> str:
        """The server, for people."""
        return self.url or " ".join(self.command)

    @property
    def reading(self) -> JsonApi:
        """Where the documents are."""
        return JsonApi(results=self.results, id=self.id, title=self.title, text=self.text, score=self.score)

    def check(self) -> None:
        """ValueError where no search could be made of it, or where it holds a key."""
        if bool(self.command) == bool(self.url):
            raise ValueError("mcp: expected either a command that starts the server or its url")
        if "{query}" not in str(self.arguments):
            raise ValueError('nothing of the call is the query: put "{query}" into mcp.arguments')
        check_no_secret(self.arguments, "mcp.arguments")


def mcp_api_of(given: Mapping[str, Any]) -> McpApi:
    """The settings, checked. ValueError in one line."""
    api = api_from(McpApi, given, "mcp")
    api.check()
    return api
