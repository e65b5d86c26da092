"""How a model writes that it calls a tool: what stands around the JSON, and where in it name and arguments stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calibadv.rollout.protocols import Call
from calibadv.sendable import sendable

_NAME = re.compile(r"[\w.-]+")
_DECODER = json.JSONDecoder(strict=False)  # models write line breaks into strings


@dataclass(frozen=True, slots=True)
class Written:
    """A call that was read: characters [start, end) of the text."""

    call: Call
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """`opener`, JSON, `closer`; white space between them does not count.

    The JSON is one object with both, or, where `between` is given, the arguments alone: behind `opener`, name and
    `between`. Without an opener a call is a whole turn.
    """

    opener: str
    closer: str
    name: str = "name"
    arguments: str = "arguments"
    between: str | None = None

    def read(self, text: str) -> list[Written]:
        """The complete calls of a text, in order, up to the first that cannot be read."""
        found: list[Written] = []
        place = 0
        while (written := self._next(text, place)) is not None:
            found.append(written)
            place = written.end
            if not self.opener:
                break
        return found

    def _next(self, text: str, place: int) -> Written | None:
        start = text.find(self.opener, place) if self.opener else _skip(text, place)
        if start < 0:
            return None
        at, name = _skip(text, start + len(self.opener)), None
        if self.between is not None:
            if (match := _NAME.match(text, at)) is None:
                return None
            name, at = match.group(), _skip(text, match.end())
            if not text.startswith(self.between, at):
                return None
            at = _skip(text, at + len(self.between))
        if (decoded := decoded_at(text, at)) is None or (call := self._call(decoded[0], name)) is None:
            return None
        end = decoded[1]
        if self.closer:
            end = _skip(text, end)
            if not text.startswith(self.closer, end):
                return None
            end += len(self.closer)
        return Written(call, start, end)

    def _call(self, value: Mapping[str, Any], name: str | None) -> Call | None:
        given = value if name is not None else value.get(self.arguments)
        name = name if name is not None else value.get(self.name)
        if isinstance(given, str):  # OpenAI's way: JSON in a string
            given = decoded[0] if (decoded := decoded_at(given, _skip(given, 0))) else {}
        return Call(name, given if isinstance(given, Mapping) else {}) if isinstance(name, str) else None


def learned(text: str, call: Call, begins: int, end: str) -> tuple[CallSyntax, int, int] | None:
    """(how `text` writes `call` behind the character `begins`, where that starts and ends); None if it cannot be read.

    `end`: what stands behind a message without calls, and may stand behind one with calls.
    """
    for at, value, stop in _objects(text, begins):
        name = next((key for key, inner in value.items() if inner == call.tool), None)
        arguments = next((key for key, inner in value.items() if _same(inner, call.arguments)), None)
        if name is not None and arguments is not None:
            start, between = at, None
            opener = text[begins:at].strip()
        elif _same(value, call.arguments) and (named := text.rfind(call.tool, begins, at)) >= 0:
            start, between = named, text[named + len(call.tool) : at].strip()
            opener = text[begins:named].strip()
        else:
            continue
        behind = text[stop:]
        closer = behind.removesuffix(end).strip() if end and behind.endswith(end) else ""
        syntax = CallSyntax(opener, closer, name or "", arguments or "", between)
        closed = text.find(closer, stop) + len(closer) if closer else stop
        return syntax, text.find(opener, begins) if opener else start, closed
    return None


def decoded_at(text: str, place: int) -> tuple[dict[str, Any], int] | None:
    """The JSON object that begins there, and where it ends; None where there is none."""
    if not text.startswith("{", place):
        return None
    try:
        value, end = _DECODER.raw_decode(text, place)
        return sendable(value), end
    except (ValueError, RecursionError):
        return None


def _objects(text: str, begins: int) -> Iterator[tuple[int, dict[str, Any], int]]:
    for match in re.compile("{").finditer(text, begins):
        if decoded := decoded_at(text, match.start()):
            yield match.start(), *decoded


def _same(value: Any, arguments: Mapping[str, Any]) -> bool:
    return value == arguments or (
        isinstance(value, str) and (decoded := decoded_at(value, 0)) is not None and decoded[0] == arguments
    )


def _skip(text: str, place: int) -> int:
    """The first character from there on that is no white space."""
    while place < len(text) and text[place].isspace():
        place += 1
    return place
