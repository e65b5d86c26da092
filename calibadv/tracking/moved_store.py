"""A folder of runs that was copied or moved: its database is made to name the artifacts beside it, not the original's.

MLflow writes absolute addresses of artifacts into its database. After `cp -r runs elsewhere` that of the copy would
read, and write, the original's files.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

log = logging.getLogger(__name__)

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
# Where MLflow keeps addresses of artifacts. What a release lacks is passed over.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
_PATIENCE_S = 60.0  # for another process that writes the database


def correct_artifact_roots(database: Path) -> list[str]:
    """Makes `database` name the artifacts beside it; the addresses that it named before, [] where it was right.

    An address that is the same folder by another path (a link, a second mount) stays. RuntimeError with the remedy if
    the database cannot be written.
    """
    if not database.exists():
        return []
    here = (database.resolve().parent / ARTIFACTS).as_uri()
    try:
        with closing(sqlite3.connect(database, timeout=_PATIENCE_S)) as connection:
            strange = [root for root in _roots(connection) if root != here and not _same(root, here)]
            if not strange:
                return []
            with connection:  # one transaction: whole or not at all
                for root in strange:
                    for table, column in _ADDRESSES:
                        _replace(connection, table, column, root, here)
    except sqlite3.Error as error:
        raise RuntimeError(
            f"{database} was copied or moved and still names the artifacts of the original; it cannot be changed "
            f"({error}): make it writable, or give another folder with --run.folder"
        ) from error
    for root in strange:
        log.warning("%s was copied or moved: it names its own artifacts now, no longer those in %s", database, root)
    return strange


def _roots(connection: sqlite3.Connection) -> list[str]:
    """The folders of artifacts that our experiments name."""
    if not _has(connection, "experiments", "artifact_location"):
        return []
    rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
    return [address for (address,) in rows if address and address.startswith("file://") and _ours(address)]


def _ours(address: str) -> bool:
    return address.rstrip("/").rpartition("/")[2] == ARTIFACTS


def _same(address: str, other: str) -> bool:
    there, here = (Path(unquote(urlsplit(uri).path)) for uri in (address, other))
    try:
        return there.samefile(here)
    except OSError:  # one of them is gone, or out of reach
        return False


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))


def _replace(connection: sqlite3.Connection, table: str, column: str, before: str, after: str) -> None:
    if _has(connection, table, column):
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
        )
