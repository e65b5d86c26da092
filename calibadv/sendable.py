"""Text as it can be sent: UTF-8 has no half of a surrogate pair, and JSON that a policy or a client writes may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")


def sendable(value: T) -> T:
    """The value with "?" for each half of a surrogate pair in its strings, and in those of its lists and mappings."""
    return cast(T, _sendable(value))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_sendable(key): _sendable(part) for key, part in value.items()}
    return [_sendable(part) for part in value] if isinstance(value, list) else value
