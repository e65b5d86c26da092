"""All checkpoints of a run, on a local folder or any fsspec URI, where a folder is whole or does not count.

On a local (or shared) file system a folder is drafted under another name and renamed once its manifest is written. An
object store cannot rename: there the manifest goes up last. Either way, what has a manifest is whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from calibadv.checkpoints.folders import DRAFT, Draft, Stored, open_root, remove_folder
from calibadv.checkpoints.manifest import Damaged
from calibadv.retries import in_words


class Kind(StrEnum):
    """What a folder is, and how its name begins."""

    CHECKPOINT = "step"  # all that a run needs to go on
    SNAPSHOT = "snapshot"  # the learners' state alone, for the sentinel


@dataclass(frozen=True, slots=True)
class Storage:
    """The checkpoints below `root`: an absolute path, or an fsspec URI such as s3://bucket/runs/mine."""

    root: str

    def prepare(self) -> None:
        """Makes the root and removes drafts that a killed process left. ValueError if nothing can be written there."""
        try:
            fs, path = open_root(self.root)
            fs.makedirs(path, exist_ok=True)
            fs.pipe_file(f"{path}/.probe", b"")
            fs.rm_file(f"{path}/.probe")
            for name in self._names():
                if name.startswith(DRAFT):
                    fs.rm(f"{path}/{name}", recursive=True)
        except Exception as error:  # each file system has errors of its own
            raise ValueError(
                f"checkpoints cannot be written to {self.root} ({in_words(error)}): set checkpoint.uri "
                "to a folder, or to an fsspec URI whose package and credentials are on every node"
            ) from error

    def versions(self, kind: Kind) -> list[int]:
        """Versions of the folders of a kind, whole or not, ascending."""
        pattern = re.compile(rf"{kind}-(\d{{6,}})")
        return sorted(int(match[1]) for name in self._names() if (match := pattern.fullmatch(name)))

    def stored(self, kind: Kind, version: int) -> Stored:
        """A folder, by its manifest. `Damaged` if it has none that can be read."""
        return Stored.open(self.root, folder_name(kind, version))

    def draft(self, kind: Kind, version: int) -> Draft:
        """A new, empty folder to be written."""
        return Draft.begin(self.root, folder_name(kind, version))

    def remove(self, kind: Kind, versions: Iterable[int]) -> None:
        """Removes folders, each its manifest first."""
        for version in versions:
            remove_folder(self.root, folder_name(kind, version))

    def clear(self) -> None:
        """Removes every checkpoint and snapshot."""
        for kind in Kind:
            self.remove(kind, self.versions(kind))

    def newest(self) -> tuple[Stored | None, list[str]]:
        """The newest checkpoint that is whole, every file of it checked; and why newer ones were passed over."""
        skipped = []
        for version in reversed(self.versions(Kind.CHECKPOINT)):
            try:
                stored = self.stored(Kind.CHECKPOINT, version)
                stored.verify()
                for snapshot in stored.manifest.snapshots:
                    self._check_snapshot(snapshot)
            except Damaged as damage:
                skipped.append(f"{self.root}/{folder_name(Kind.CHECKPOINT, version)} is passed over: {damage}")
                continue
            return stored, skipped
        return None, skipped

    def _check_snapshot(self, version: int) -> None:
        try:
            self.stored(Kind.SNAPSHOT, version).verify()
        except Damaged as damage:
            raise Damaged(f"it needs {folder_name(Kind.SNAPSHOT, version)}: {damage}") from None

    def _names(self) -> list[str]:
        fs, path = open_root(self.root)
        fs.invalidate_cache()
        try:
            return [str(entry).rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []


def folder_name(kind: Kind, version: int) -> str:
    """E.g. step-000010: sorted by name is sorted by version, up to a million."""
    return f"{kind}-{version:06}"


def superseded(versions: Sequence[int], *, keep_last: int, best: int | None) -> list[int]:
    """Versions (ascending) that retention gives up: all but the `keep_last` newest and the best."""
    return [version for version in versions[:-keep_last] if version != best]


def unneeded(snapshots: Iterable[int], *needed_by: Collection[int]) -> list[int]:
    """Snapshots that no kept checkpoint and not the running sentinel may go back to."""
    needed = {version for versions in needed_by for version in versions}
    return [version for version in snapshots if version not in needed]
