"""`--skip-bad`: goes on past bad rows, counts them, and lists every one in a file."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from calibadv.data.errors import DataError, refuse

log = logging.getLogger("workflows.prepare_data")

_LOGGED = 5  # of each file; the list has all


class SkipList:
    """An `OnBad` that lets reading go on: `count` rows so far, a line each in the file `listing`.

    Without bad rows there is no such file. With `skip` False the first one is refused.
    """

    def __init__(self, listing: Path, *, skip: bool) -> None:
        self.listing, self.count = listing, 0
        self._skip = skip
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        self.listing.unlink(missing_ok=True)  # of an earlier run
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file:
            self._file.close()
        if self.count:
            log.warning("skipped %d bad rows; all of them are listed in %s", self.count, self.listing)

    def __call__(self, error: DataError) -> None:
        if not self._skip:
            refuse(error)
        self.count += 1
        if self._file is None:
            self.listing.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.listing.open("w", encoding="utf-8", errors="backslashreplace")
        self._file.write(f"{error}\n")
        if self.count <= _LOGGED:
            log.warning("skipped: %s", error)


def skip_list(out: Path, *, skip: bool) -> SkipList:
    """The list for what is written to `out`: `out.parquet.skipped.txt` beside it."""
    return SkipList(out.with_name(f"{out.name}.skipped.txt"), skip=skip)
