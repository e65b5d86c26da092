"""Text as it can be sent: UTF-8 has no half of a surrogate pair, and JSON that anybody writes may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

T = TypeVar("T")


def sendable(value: T) -> T:
    """The value with "?" for each half of a surrogate pair in its strings, and in those of its parts.

    Parts are those of lists, tuples, mappings and dataclasses.
    """
    return cast(T, _sendable(value))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_sendable(key): _sendable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_sendable, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _sendable(getattr(value, field.name)) for field in fields(value)})
    return value
