"""Files and folders that are there whole or not at all: written beside their place, and renamed at the end.

And many files read side by side.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

_T = TypeVar("_T")
_R = TypeVar("_R")
_SIDE_BY_SIDE = 8  # a core hashes less than a disk reads


@contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A file to write within the block, which takes `path`'s place if the block ends well, and is removed if not.

    Every process has its own. `durable`: it is there after a power cut too.
    """
    draft = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.partial")
    try:
        yield draft
        if durable:
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = False) -> Path:
    """Writes `path` in one move: a reader, or a second writer, never meets half of it. Returns it."""
    return write_bytes(path, text.encode(), durable=durable)


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> Path:
    """Writes `path` in one move. Returns it."""
    with whole_file(path, durable=durable) as draft:
        draft.write_bytes(content)
    return path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, `<name>.partial`, which takes `folder`'s place if the block ends well, and is removed if not.

    One process at a time: see `once_at_a_time`.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that died
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def once_at_a_time(folder: Path) -> Iterator[None]:
    """Holds `folder`'s lock, beside it, and waits for it. A process that dies lets go of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        yield


def side_by_side(work: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """`work` of each item, in their order, of several at a time in threads; what the first one raises ends it."""
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        yield from pool.map(work, items)
