"""A file of what something paid or moody has answered: (engine, query) -> answer, in SQLite.

An answer is kept once and for good: whoever asks the same engine the same query later, in another step, run or study,
has the answer that the first one had. Failures are never kept. Answers of several engines share one file.

Processes of one host may open a file at the same time (SQLite's write-ahead log). Hosts may not: its locks are shared
memory. On a network file system one process has the file for itself, and another is refused.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import psutil
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Mode = Literal["record", "replay"]
Engine = Mapping[str, Any]
"""What decides an engine's answers beside the query, as JSON."""

BUSY_S = 30.0  # that a write waits for another process's
_APPLICATION = 0x43414C42  # marks a file as ours, beside the schema's version
_VERSION = 1
_NETWORK = (
    *("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "wekafs", "juicefs"),
    *("sshfs", "s3fs", "gcsfuse", "blobfuse", "mountpoint-s3", "rclone"),
)  # how their types begin, in Linux with "fuse." before those that are no kernel's
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS engines (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS answers (
    engine INTEGER NOT NULL REFERENCES engines, query TEXT NOT NULL, documents TEXT NOT NULL, asked_at TEXT NOT NULL,
    UNIQUE (engine, query)
);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


class KeptAnswers(Generic[Answer]):
    """The answers of one engine. ValueError for a file that cannot be one, or that another host has.

    `replay` opens a file that must be there, holds answers of this engine, and is not written to.
    """

    def __init__(
        self,
        path: Path,
        engine: Engine,
        mode: Mode = "record",
        *,
        called: str,
        to_text: Callable[[Answer], str],
        of_text: Callable[[str], Answer],
        alone: bool | None = None,
    ) -> None:
        """`called`: the file, in errors; `to_text` and `of_text`: an answer as the file has it, and back.

        `alone`: no other process may have the file; by default where it lies on a network file system.
        """
        self._path, self._identity, self._called = path, canonical(engine), f"{called} = {str(path)!r}"
        self._to_text, self._of_text = to_text, of_text
        if mode == "replay" and not path.is_file():
            raise ValueError(f"{self._called} is not there, and {called}_mode = 'replay' needs one")
        if mode == "record":
            path.parent.mkdir(parents=True, exist_ok=True)
        self._unwritten: dict[str, Answer] = {}
        try:
            self._file = _open(path, mode, on_network(path) if alone is None else alone, self._called)
            self._engine = self._number(mode)
        except sqlite3.Error as error:
            why, remedy = str(error), "name another file"
            if "locked" in why or "busy" in why:
                why = "another process has it, and it lies on a network file system"
                remedy = "give each run a file of its own there, or one on a local disk"
            elif "unable to open" in why and _has_log(path):
                why = f"{_log(path).name} beside it, of a killed process, cannot be read where nothing is written"
                remedy = "copy both to a folder that can be written to"
            raise ValueError(f"{self._called} cannot be opened: {why}; {remedy}") from error

    def find(self, query: str) -> Answer | None:
        """What the engine gave for the query; None where it was not asked."""
        if query in self._unwritten:
            return self._unwritten[query]
        row = self._file.execute(
            "SELECT documents FROM answers WHERE engine = ? AND query = ?", (self._engine, query)
        ).fetchone()
        return None if row is None else self._of_text(row[0])

    def keep(self, query: str, answer: Answer) -> Answer:
        """The answer that is recorded for the query now: this one, or that of whoever was first.

        Where the file takes nothing (a full disk) they wait in memory and are written with a later one, or at the end.
        """
        self._unwritten[query] = answer
        try:
            self._write()
        except sqlite3.OperationalError as error:
            if len(self._unwritten) == 1:
                logger.warning("%s cannot be written (%s): its answers wait in memory", self._path, error)
            return answer
        found = self.find(query)
        assert found is not None
        return found

    def count(self) -> int:
        """Answers of this engine in the file."""
        (number,) = self._file.execute("SELECT COUNT(*) FROM answers WHERE engine = ?", (self._engine,)).fetchone()
        return int(number)

    def close(self) -> None:
        """Writes what waits, and closes the file; the last process to do so leaves one file without a log beside it."""
        try:
            self._write()
        except sqlite3.OperationalError as error:
            lost = len(self._unwritten)
            logger.warning("%s cannot be written (%s): it lacks %d answers that were given", self._path, error, lost)
        self._file.close()

    def _write(self) -> None:
        if self._unwritten:
            asked_at = datetime.now(UTC).isoformat(timespec="seconds")
            rows = [(self._engine, asked, self._to_text(kept), asked_at) for asked, kept in self._unwritten.items()]
            with self._file:
                self._file.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)
            self._unwritten.clear()

    def _number(self, mode: Mode) -> int:
        if mode == "record":
            with self._file:
                self._file.execute("INSERT OR IGNORE INTO engines (identity) VALUES (?)", (self._identity,))
        known = dict(self._file.execute("SELECT identity, id FROM engines").fetchall())
        if self._identity not in known:
            raise ValueError(
                f"{self._called} has no answer of this engine, {self._identity}; it has some of: "
                f"{'; '.join(known) or 'none'}. Mend what differs, or say with search.ledger_engine that it is the same"
            )
        return int(known[self._identity])


def canonical(engine: Engine) -> str:
    """The engine as one text, the same for equal engines."""
    return json.dumps(engine, sort_keys=True, separators=(",", ":"), default=str)


def on_network(path: Path, mounts: Mapping[Path, str] | None = None) -> bool:
    """Whether the file's disk is another machine's, as far as this system tells. `mounts`: folder -> its type."""
    if mounts is None:
        mounts = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    whole = path.resolve()  # a link may lead to another disk
    kind = next((mounts[folder] for folder in (whole, *whole.parents) if folder in mounts), "")
    return kind.removeprefix("fuse.").startswith(_NETWORK)


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _has_log(path: Path) -> bool:
    return _log(path).is_file() and _log(path).stat().st_size > 0


def _open(path: Path, mode: Mode, alone: bool, called: str) -> sqlite3.Connection:
    parameters = "rwc"
    if mode == "replay":
        # What is immutable is read without its log, in which a killed process left its last answers.
        parameters = "ro" if os.access(path.parent, os.W_OK) or _has_log(path) else "ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode={parameters}"
    busy_s = 0.5 if alone else BUSY_S
    file = sqlite3.connect(uri, uri=True, timeout=busy_s, check_same_thread=False)
    # To switch a new file to its log SQLite does not wait for others who do the same.
    patient = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, sqlite3.OperationalError) and "locked" in str(error)),
        stop=stop_after_delay(busy_s),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    )
    try:
        patient(_prepare, file, mode, alone, called)
    except BaseException:
        file.close()
        raise
    return file


def _prepare(file: sqlite3.Connection, mode: Mode, alone: bool, called: str) -> None:
    if alone and mode == "record":
        file.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the log's first use: then it needs no shared memory
    # Tables first: whoever creates the file meanwhile makes both at once.
    (tables,) = file.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
    (application,) = file.execute("PRAGMA application_id").fetchone()
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION and (tables or mode == "replay"):
        raise ValueError(f"{called} is another program's database: name another file")
    if application == _APPLICATION and version != _VERSION:
        raise ValueError(f"{called} is of version {version}, expected {_VERSION}: name another")
    if mode == "record":
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")  # a process that is killed loses nothing
        if application != _APPLICATION:
            file.executescript(_SCHEMA)
