"""What a checkpoint's folder holds, written into it last: without a manifest it is no checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from calibadv.json_lines import json_value

MANIFEST = "manifest.json"
_FORMAT = 1


class Damaged(ValueError):
    """A checkpoint that is not whole."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's size and hash."""

    bytes: int
    sha256: str


Files = Mapping[str, FileEntry]
"""Path within the folder, with / between its parts -> what the file is."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole folder: the policy version that it keeps, of how many learners, and every file."""

    version: int
    learners: int
    files: Files
    snapshots: tuple[int, ...] = ()  # versions of the snapshots that a run going on from here may need

    def dumps(self) -> str:
        """As JSON text, which `loads` reads."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def loads(text: str | bytes) -> Manifest:
        """The manifest that `dumps` wrote. `Damaged` for anything else, also for one naming a file outside."""
        try:
            values: dict[str, Any] = json_value(text)
            if values.pop("format") != _FORMAT:
                raise ValueError(f"it is not of format {_FORMAT}")
            files = {str(name): FileEntry(int(e["bytes"]), str(e["sha256"])) for name, e in values["files"].items()}
            for name in files:
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name:
                    raise ValueError(f"it names the file {name!r}, which is not in the folder")
            snapshots = tuple(int(version) for version in values["snapshots"])
            return Manifest(int(values["version"]), int(values["learners"]), files, snapshots)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"its {MANIFEST} cannot be used ({error!r})") from error
