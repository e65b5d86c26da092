"""Tools beside the search (`[[rollout.tools]]`): functions of the user's, and what MCP servers offer.

What a policy gets wrong, it is told. What a tool gets wrong is the environment's fault: it is tried again, and then the
rollout is given up; the policy never sees it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NotRequired, Protocol

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator, with_config
from typing_extensions import TypedDict

from calibadv.refusals import problems
from calibadv.retries import in_words, retried
from calibadv.rollout.protocols import SEARCH, Result, ToolFailed
from calibadv.section import Decides, Local, Means, Seconds, Section, Tokens
from calibadv.sendable import sendable
from calibadv.user_code import called, load

logger = logging.getLogger(__name__)

Schema = Mapping[str, Any]
KEY = "rollout.tools"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class ToolConfig(Section):
    """A function, or an MCP server."""

    decides: ClassVar[Decides] = Decides.DIALOGUE

    function: Local[str] = ""
    """A function of your own, as file.py:name or package.module:name."""
    command: tuple[str, ...] = ()
    """What starts an MCP server that is spoken to through its standard input; each engine starts its own."""
    env: tuple[str, ...] = ()
    """Names of the environment variables that such a server is given."""
    url: Means[str] = ""
    """Address of an MCP server, e.g. http://127.0.0.1:8000/mcp."""
    name: str = ""
    """What the policy calls a function, "" = its own name; of an MCP server the one tool to offer, "" = all."""
    max_tokens: Tokens = 512
    """Tokens of a result; what is more is cut."""
    timeout_s: Means[Seconds] = 30.0
    """Seconds of one attempt. An MCP server has a minute for its start where this is less."""
    retries: Means[int] = Field(2, ge=0, le=100)
    """Attempts after one that failed."""

    @model_validator(mode="after")
    def _one_kind(self) -> ToolConfig:
        if sum(map(bool, (self.function, self.command, self.url))) != 1:
            raise ValueError(f"{KEY}: expected one of function, command and url for each tool")
        if self.function:
            check_name(self.called)
        return self

    @property
    def called(self) -> str:
        """The name of the tool, or of the server."""
        return self.name or self.function.rpartition(":")[2] or self.url or " ".join(self.command)


def check_name(name: str) -> None:
    """ValueError for what a policy cannot call."""
    if not _NAME.fullmatch(name) or name == SEARCH:
        raise ValueError(
            f"{KEY}: a tool is called {name!r}; expected letters, digits, '_' and '-', and not {SEARCH!r}, which is "
            "the search (search.tool)"
        )


class Tool(Protocol):
    """A `ToolFn` that says what it is."""

    @property
    def name(self) -> str: ...

    @property
    def schema(self) -> Schema:
        """What the policy is told of it: name, description and parameters."""

    async def __call__(self, arguments: Mapping[str, Any]) -> Result: ...


@dataclass(frozen=True)
class FunctionTool:
    """A `Tool` over a function. One that is not asynchronous is called in a thread: other rollouts go on."""

    config: ToolConfig
    function: Callable[..., Any]

    @property
    def name(self) -> str:
        return self.config.called

    @property
    def schema(self) -> Schema:
        """What the policy is told of it: name, description and parameters."""
        given = _without_titles(_arguments(self.function).json_schema())
        parameters = {"type": "object", "properties": {}, **given}
        del parameters["additionalProperties"]
        about = {"name": self.name, "description": inspect.getdoc(self.function), "parameters": parameters}
        return {"type": "function", "function": about}

    async def __call__(self, arguments: Mapping[str, Any]) -> Result:
        """The function's result as text, or in which way the arguments are wrong. Raises `ToolFailed`."""
        try:
            given = _arguments(self.function).validate_python(dict(arguments))
        except ValidationError as error:
            wrong = "; ".join(f"{it.where or 'arguments'}: {it.said}" for it in problems(error.errors()))
            return Result(text=f"Error: {self.name}: {wrong}", max_tokens=self.config.max_tokens)
        return await tried(self.config, self.name, given, self._call)

    async def _call(self, given: Mapping[str, Any]) -> Any:
        return await called(self.function, **given)


async def tried(
    config: ToolConfig, name: str, given: Mapping[str, Any], call: Callable[[Mapping[str, Any]], Awaitable[Any]]
) -> Result:
    """What the call gives, within the tool's time and tries. Raises `ToolFailed`."""

    async def attempt() -> Result:
        async with asyncio.timeout(config.timeout_s):
            return Result(text=sendable(_as_text(await call(given))), max_tokens=config.max_tokens)

    try:
        return await retried(attempt, config.retries)
    except Exception as error:
        logger.warning("tool %s gave nothing for %s (%s): the rollout is given up", name, given, in_words(error))
        raise ToolFailed(f"tool {name}: {in_words(error)}") from error


def make_tools(configs: Sequence[ToolConfig]) -> tuple[Tool, ...]:
    """The tools that settings name. MCP servers are asked what they offer, once in a process.

    ValueError for one that cannot be described to a policy, or has another's name.
    """
    tools: list[Tool] = []
    for config in configs:
        if config.function:
            tools.append(_made(config))
        else:
            from calibadv.rollout.mcp_tools import offered  # an extra: only where it is asked for

            tools += offered(config)
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{KEY}: two tools are called {twice!r}: give one another name")
    return tuple(tools)


def _made(config: ToolConfig) -> FunctionTool:
    function = load(config.function, KEY)
    if not callable(function):
        raise ValueError(f"{KEY}: {config.function!r} is no function: it is {function!r}")
    if not inspect.getdoc(function):
        raise ValueError(f"{KEY}: {config.function!r} has no docstring, which tells the policy what it does: write one")
    try:
        tool = FunctionTool(config, function)
        json.dumps(tool.schema)
    except Exception as error:
        raise ValueError(f"{KEY}: {config.function!r} cannot be described to a policy: {error}") from error
    return tool


@cache
def _arguments(function: Callable[..., Any]) -> TypeAdapter[Any]:
    """Reads the arguments of a call. ValueError for parameters without a name or a type."""
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValueError(f"{parameter} takes what has no name: give each parameter one")
        if parameter.annotation is parameter.empty:
            raise ValueError(f"its parameter {name!r} has no type: write e.g. {name}: str")
        optional = parameter.default is not parameter.empty
        fields[name] = NotRequired[parameter.annotation] if optional else parameter.annotation
    kind: Any = TypedDict("Arguments", fields)  # type: ignore[misc]
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(kind))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _without_titles(schema: Any) -> Any:
    """The schema without the titles that pydantic makes of names: tokens that say nothing."""
    if isinstance(schema, list):
        return [_without_titles(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_titles(part) for key, part in schema.items() if key != "properties"}
    if isinstance(kept.get("title"), str):
        del kept["title"]
    if "properties" in schema:  # whose keys are names
        kept["properties"] = {name: _without_titles(part) for name, part in schema["properties"].items()}
    return kept
