"""Tools beside the search (`[[rollout.tools]]`): a function of the user's, described by its type hints and docstring.

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
from typing import Any, ClassVar, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator, with_config
from typing_extensions import TypedDict

from calibadv.rollout.protocols import SEARCH, Result, ToolFailed
from calibadv.section import Decides, Means, Seconds, Section, Tokens
from calibadv.user_code import load

logger = logging.getLogger(__name__)

Schema = Mapping[str, Any]
KEY = "rollout.tools"
RETRY_AFTER_S = 0.5  # doubled each time
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class ToolConfig(Section):
    """One tool."""

    decides: ClassVar[Decides] = Decides.DIALOGUE

    function: str
    """A function of your own, as file.py:name or package.module:name."""
    name: str = ""
    """What the policy calls it; "" = the function's name."""
    max_tokens: Tokens = 512
    """Tokens of a result; what is more is cut."""
    timeout_s: Means[Seconds] = 30.0
    """Seconds of one attempt."""
    retries: Means[int] = Field(2, ge=0, le=100)
    """Attempts after one that failed."""

    @model_validator(mode="after")
    def _named(self) -> ToolConfig:
        if not _NAME.fullmatch(self.called) or self.called == SEARCH:
            raise ValueError(
                f"{KEY}: a tool is called {self.called!r}; expected letters, digits, '_' and '-', and not {SEARCH!r}, "
                "which is the search (search.tool)"
            )
        return self

    @property
    def called(self) -> str:
        return self.name or self.function.rpartition(":")[2]


@dataclass(frozen=True)
class Tool:
    """A `ToolFn` over a function. One that is not asynchronous is called in a thread: other rollouts go on."""

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
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            return Result(text=f"Error: {self.name}: {wrong}", max_tokens=self.config.max_tokens)
        for attempt in range(self.config.retries + 1):
            try:
                async with asyncio.timeout(self.config.timeout_s):
                    return Result(text=_as_text(await self._call(given)), max_tokens=self.config.max_tokens)
            except Exception as error:
                if attempt == self.config.retries:
                    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                    logger.warning("tool %s gave nothing for %s (%s): the rollout is given up", self.name, given, said)
                    raise ToolFailed(f"tool {self.name}: {said}") from error
                await asyncio.sleep(RETRY_AFTER_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _call(self, given: Mapping[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**given)
        result = await asyncio.to_thread(lambda: self.function(**given))
        return await result if isinstance(result, Awaitable) else result


def make_tools(configs: Sequence[ToolConfig]) -> tuple[Tool, ...]:
    """The tools that settings name. ValueError for one that cannot be described to a policy."""
    return tuple(_made(config) for config in configs)


def _made(config: ToolConfig) -> Tool:
    function = load(config.function, KEY)
    if not callable(function):
        raise ValueError(f"{KEY}: {config.function!r} is no function: it is {function!r}")
    if not inspect.getdoc(function):
        raise ValueError(f"{KEY}: {config.function!r} has no docstring, which tells the policy what it does: write one")
    try:
        tool = Tool(config, function)
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
