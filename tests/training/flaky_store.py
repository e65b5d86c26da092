"""An object store that is down now and then, with errors that are no `OSError`: as those of gcsfs and botocore."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from calibadv.checkpoints.storage import Storage


class HttpError(Exception):
    """What it answers while it is down."""


class FlakyStore(MemoryFileSystem):  # type: ignore[misc]
    """Refuses what matches `refused`, e.g. "put_file .*/run/"."""

    protocol = "flaky"
    refused: ClassVar[str] = ""

    def ls(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._answer("ls", path)
        return super().ls(path, *args, **kwargs)

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> None:
        self._answer("put_file", rpath)
        super().put_file(lpath, rpath, *args, **kwargs)

    def pipe_file(self, path: str, *args: Any, **kwargs: Any) -> None:
        self._answer("pipe_file", path)
        super().pipe_file(path, *args, **kwargs)

    def rm_file(self, path: str) -> None:
        self._answer("rm_file", path)
        super().rm_file(path)

    def rm(self, path: str, *args: Any, **kwargs: Any) -> None:
        self._answer("rm", path)
        super().rm(path, *args, **kwargs)

    def _answer(self, call: str, path: str) -> None:
        if self.refused and re.search(self.refused, f"{call} {path}"):
            raise HttpError("503 Service Unavailable")


fsspec.register_implementation("flaky", FlakyStore)


def flaky() -> Storage:
    """A place of its own in it."""
    return Storage(f"flaky://{uuid.uuid4().hex}/mine")


@contextmanager
def down(refused: str) -> Iterator[None]:
    """Within it the store refuses these calls."""
    FlakyStore.refused = refused
    try:
        yield
    finally:
        FlakyStore.refused = ""
