"""A file of JSON lines that a full disk neither tears nor loses lines of, as long as the process lives."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calibadv.json_lines import json_line

log = logging.getLogger(__name__)


class Journal:
    """Appends lines. What the disk does not take waits in memory and goes before the next lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = b""

    def append(self, values: Iterable[Mapping[str, Any]]) -> None:
        """One line an object. Raises nothing for the disk: it is said once, and again when all is written."""
        refused = bool(self._waiting)
        self._waiting += "".join(map(json_line, values)).encode()
        try:
            self._write()
        except OSError as error:
            if not refused:
                log.warning("%s cannot be written (%s): its lines wait in memory and are tried again", self.path, error)
            return
        if refused:
            log.warning("%s is written again, with all lines that waited", self.path)

    def content(self) -> bytes | None:
        """The whole file and what waits for it; None if there is neither."""
        there = self.path.exists()
        return (self.path.read_bytes() if there else b"") + self._waiting if there or self._waiting else None

    def forget(self) -> None:
        """Drops what waits: the file was put back to an earlier moment."""
        self._waiting = b""

    def close(self) -> None:
        """One last try; says how much is lost."""
        self.append([])
        if self._waiting:
            log.error("%s lacks its last %d lines: the disk did not take them", self.path, self._waiting.count(b"\n"))

    def _write(self) -> None:
        if self._waiting:
            append_lines(self.path, self._waiting)
            self._waiting = b""


def append_lines(path: Path, lines: bytes) -> None:
    """Appends all of the lines or, with OSError, nothing. A last line that a killed process tore is ended first."""
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            lines = b"\n" + lines
        try:
            written = file.write(lines)
            if written != len(lines):  # a disk that is full takes a part first
                raise OSError(f"only {written} of {len(lines)} bytes")
        except OSError:
            file.truncate(size)
            raise
