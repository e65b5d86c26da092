"""The lines of JSON-lines files: ended by \\n alone, since JSON leaves every other line end of Unicode as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_line(value: Mapping[str, Any]) -> str:
    """The object as one line with its end. Text stays readable; half a surrogate pair is escaped."""
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(value)
    return f"{line}\n"


def whole_lines(content: bytes) -> tuple[list[bytes], bytes]:
    """(the lines without their ends, what follows the last end: b"", or a line that a crash has torn).

    Not `splitlines`, which also ends a line at U+2028, U+0085, \\r and others that text may hold.
    """
    *lines, rest = content.split(b"\n")
    return lines, rest
