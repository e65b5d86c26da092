"""Files that are still there after a power cut: written through to the disk before anything relies on them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from calibadv.checkpoints.manifest import FileEntry


def sealed(folder: Path) -> dict[str, FileEntry]:
    """Every file below the folder, by its path in it, once all are safe on the disk. OSError if they cannot be."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = FileEntry(path.stat().st_size, digest)
    sync_folder(folder)
    return files


def write_text(path: Path, text: str) -> None:
    """Writes a file and waits until the disk has it."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the disk has the folder's own entries: without them a file that it has cannot be found."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
