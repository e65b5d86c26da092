"""The SQLite database of MLflow beside the runs: its URI of its path, and its path of its URI."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from calibadv.tracking.moved_store import DATABASE

_SCHEME = "sqlite:///"
_ENCODED = re.compile(r"%(?=[0-9A-Fa-f]{2})")


def store_uri(runs: Path) -> str:
    """The URI of the database in the folder of the runs. ValueError for a path that no such URI can hold.

    SQLAlchemy takes the path as it stands, with blanks and '#', but '%' and two hex digits for one character, and
    everything from a '?' on for options: MLflow would write to another file, in silence.
    """
    path = runs.resolve() / DATABASE
    if "?" in str(path):
        raise ValueError(
            f"run.folder = {str(runs)!r}: the address of MLflow's database in {path.parent} cannot hold '?': choose a "
            "folder without, or set tracking.mlflow_uri"
        )
    return f"{_SCHEME}{_ENCODED.sub('%25', str(path))}"


def database_path(uri: str) -> Path | None:
    """The file of an SQLite URI, without its options; None for another kind of store."""
    return Path(unquote(uri.removeprefix(_SCHEME).partition("?")[0])) if uri.startswith(_SCHEME) else None
