"""JSON that anybody may have written, and the lines of JSON-lines files: ended by \\n alone, since JSON leaves every
other line end of Unicode as it is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def json_value(text: str | bytes) -> Any:
    """What the JSON says. ValueError where it is none, also for more nesting or digits than Python takes."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None


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


def json_objects(content: bytes, path: Path) -> list[dict[str, Any]]:
    """The objects of a file's content; lines cut by a crash are skipped with a warning."""
    lines, torn = whole_lines(content)
    found = (
        _parsed(line, f"{path}: line {number}") for number, line in enumerate([*lines, torn] if torn else lines, 1)
    )
    return [value for value in found if value is not None]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, [] if it is missing; lines cut by a crash are skipped with a warning."""
    return json_objects(path.read_bytes(), path) if path.exists() else []


@dataclass
class Tail:
    """A JSON-lines file that grows: what was added behind `offset`, a number of bytes."""

    path: Path
    offset: int = 0

    def added(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Each object behind the offset, and the offset behind it, for its reader to move on to.

        A last line without its end is waited for. A file that has become shorter was begun anew: it is read from its
        start.
        """
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.offset:
                    self.offset = 0
                end = file.seek(self.offset)
                lines, _ = whole_lines(file.read())
        except FileNotFoundError:
            self.offset = 0
            return
        for line in lines:
            value = _parsed(line, f"{self.path}: the line at byte {end}")
            end += len(line) + 1
            if value is None:
                self.offset = end
            else:
                yield value, end


def _parsed(line: bytes, where: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json_value(line.decode("utf-8", errors="replace"))
        return value
    except ValueError:
        log.warning("%s is not JSON (cut by a crash?), skipped", where)
        return None
