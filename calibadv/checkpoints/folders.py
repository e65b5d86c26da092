"""One folder of a storage: `Draft` while it is written, `Stored` once it is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from calibadv.checkpoints.manifest import MANIFEST, Damaged, FileEntry, Files, Manifest
from calibadv.files import side_by_side, write_text
from calibadv.json_lines import json_value

DRAFT = ".draft-"  # before the name of a local folder that is being written
_SHARE = "set checkpoint.uri to storage that every node shares"


def open_root(root: str) -> tuple[Any, str]:
    """(file system, path on it) of an absolute path or an fsspec URI."""
    if "://" not in root:  # fsspec would take "::" in a path for a chain of file systems
        return LocalFileSystem(), root.rstrip("/")
    fs, path = fsspec.core.url_to_fs(root)
    return fs, path.rstrip("/")


def is_local(root: str) -> bool:
    """Whether the root is a path of this machine (or of every machine, where it is shared)."""
    return isinstance(open_root(root)[0], LocalFileSystem)


def remove_folder(root: str, name: str) -> None:
    """Removes a folder, manifest first: half removed it is not whole. Nothing happens if it is not there."""
    fs, path = open_root(root)
    fs.invalidate_cache()
    folder = f"{path}/{name}"
    if fs.exists(f"{folder}/{MANIFEST}"):
        fs.rm_file(f"{folder}/{MANIFEST}")
    if fs.exists(folder):
        fs.rm(folder, recursive=True)


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole folder. Its files are read through its manifest: none is used that is not what was written."""

    root: str
    name: str
    manifest: Manifest

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"

    @staticmethod
    def open(root: str, name: str) -> Stored:
        """The folder, by its manifest. `Damaged` if it has none that can be read."""
        fs, path = open_root(root)
        try:
            text = fs.cat_file(f"{path}/{name}/{MANIFEST}")
        except FileNotFoundError:
            raise Damaged(f"it has no {MANIFEST}: it was never finished") from None
        return Stored(root, name, Manifest.loads(text))

    def verify(self) -> None:
        """Reads every file. `Damaged` naming the first that is missing or not what was written."""
        fs, path = open_root(self.root)

        def check(file: str) -> None:
            try:
                with fs.open(f"{path}/{self.name}/{file}", "rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").hexdigest()
            except FileNotFoundError:
                raise Damaged(f"its file {file} is missing") from None
            if digest != self.manifest.files[file].sha256:
                raise Damaged(f"its file {file} is not what was written: its hash differs from the manifest's")

        for _ in side_by_side(check, self.manifest.files):
            pass

    def read(self, file: str) -> bytes:
        """A file's content, checked. `Damaged` if the manifest does not name it or its hash differs."""
        if (entry := self.manifest.files.get(file)) is None:
            raise Damaged(f"{self} holds no file {file}")
        fs, path = open_root(self.root)
        content: bytes = fs.cat_file(f"{path}/{self.name}/{file}")
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise Damaged(f"{self}/{file} is not what was written: its hash differs from the manifest's")
        return content

    def json(self, file: str) -> Any:
        """A JSON file's values. `Damaged` if it is none."""
        try:
            return json_value(self.read(file))
        except ValueError as error:
            raise Damaged(f"{self}/{file} is not JSON: {error}") from None

    def has(self, file: str) -> bool:
        """Whether it holds the file."""
        return file in self.manifest.files

    def reader(self, part: str) -> Callable[[str], bytes]:
        """`read` within a part of the folder."""
        return lambda file: self.read(f"{part}/{file}")


@dataclass(frozen=True, slots=True)
class Draft:
    """A folder while it is written by the driver and every learner, each its own parts. Small and picklable."""

    root: str
    name: str

    @staticmethod
    def begin(root: str, name: str) -> Draft:
        """An empty draft. A local folder of this name stays until the commit; an object store's is removed now."""
        draft = Draft(root, name)
        draft.abandon()
        if is_local(root):
            draft.path.mkdir(parents=True)
        return draft

    @property
    def path(self) -> Path:
        """Where a local one is drafted."""
        return Path(open_root(self.root)[1]) / f"{DRAFT}{self.name}"

    def add(self, part: str, write: Callable[[Path], None]) -> dict[str, FileEntry]:
        """What `write` puts into the folder it is given: safe on the disk, or uploaded. A part has one writer.

        ValueError where the draft that the driver began cannot be seen.
        """
        if is_local(self.root):
            if not self.path.is_dir():
                raise ValueError(f"{self.path}, which the driver has made, is not there: {_SHARE}")
            folder = self.path / part
            folder.mkdir()
            write(folder)
            files = sealed(folder)
        else:
            with tempfile.TemporaryDirectory(prefix="calibadv-") as local:
                write(Path(local))
                files = sealed(Path(local))
                fs, path = open_root(self.root)
                for file in files:
                    target = f"{path}/{self.name}/{part}/{file}"
                    fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                    fs.put_file(f"{local}/{file}", target)
        return {f"{part}/{file}": entry for file, entry in files.items()}

    def commit(self, manifest: Manifest) -> Stored:
        """Makes the draft whole. ValueError if a file that a learner wrote cannot be seen from here."""
        fs, path = open_root(self.root)
        if is_local(self.root):
            self._check_seen(fs, str(self.path), manifest.files)
            write_text(self.path / MANIFEST, manifest.dumps(), durable=True)
            _sync_folder(self.path)
            remove_folder(self.root, self.name)
            self.path.replace(Path(path) / self.name)
            _sync_folder(Path(path))
        else:
            self._check_seen(fs, f"{path}/{self.name}", manifest.files)
            fs.pipe_file(f"{path}/{self.name}/{MANIFEST}", manifest.dumps().encode())
        return Stored(self.root, self.name, manifest)

    def abandon(self) -> None:
        """Removes the draft."""
        if is_local(self.root):
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            remove_folder(self.root, self.name)

    def _check_seen(self, fs: Any, where: str, files: Files) -> None:
        fs.invalidate_cache()
        for file, entry in files.items():
            try:
                size = fs.info(f"{where}/{file}")["size"]
            except FileNotFoundError:
                size = None
            if size != entry.bytes:
                raise ValueError(
                    f"a learner wrote {file} with {entry.bytes} bytes, but seen from the driver {where}/{file} "
                    f"{'is not there' if size is None else f'has {size}'}: {_SHARE}"
                )


def sealed(folder: Path) -> dict[str, FileEntry]:
    """Every file below the folder, by its path in it, once all are safe on the disk. OSError if they cannot be."""
    inside = sorted(folder.rglob("*"))
    for path in inside:
        if path.is_dir():
            _sync_folder(path)
    files = [path for path in inside if not path.is_dir()]
    names = [path.relative_to(folder).as_posix() for path in files]
    entries = dict(zip(names, side_by_side(_sealed, files), strict=True))
    _sync_folder(folder)
    return entries


def _sealed(path: Path) -> FileEntry:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return FileEntry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _sync_folder(folder: Path) -> None:
    """Waits until the disk has the folder's own entries: without them a file that it has cannot be found."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
