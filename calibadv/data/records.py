"""Reads the records of a data file of any kind, one at a time, each with its place for error messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from calibadv.data.errors import DataError, OnBad, refuse
from calibadv.data.json_records import json_records
from calibadv.data.reading import kind_of
from calibadv.data.record import Record
from calibadv.data.table_records import parquet_records, table_records
from calibadv.data.tally import Tally

__all__ = ["Record", "counted_records", "iter_records"]

_READERS = {".parquet": parquet_records, ".csv": table_records, ".tsv": table_records}


def iter_records(path: Path, on_bad: OnBad = refuse) -> Iterator[Record]:
    """The records of a file in its order, at least one; only the one at hand is in memory.

    The suffix says the kind: parquet, csv, tsv, jsonl; all else is JSON or jsonl. Text may be packed by gzip. Rows that
    cannot be read go to `on_bad`; a file without any record is a `DataError` whatever `on_bad` does.
    """
    wrong: list[DataError] = []

    def remember(error: DataError) -> None:
        on_bad(error)
        if not wrong:  # the first one says most: it may be what spoiled the others
            wrong.append(error)

    found = False
    for record in _READERS.get(kind_of(path), json_records)(path, remember):
        found = True
        yield record
    if wrong and not found:
        raise wrong[0]
    if not found:
        raise DataError(str(path), "the file holds no records", "at least one", "Check that it was written completely.")


def counted_records(path: Path, on_bad: OnBad, tally: Tally) -> Iterator[Record]:
    """As `iter_records`. `tally` counts the rows, those that cannot be read as refused; what becomes of the others is
    for the caller to count.
    """

    def unreadable(error: DataError) -> None:
        on_bad(error)
        tally.rows += error.rows
        tally.refused += error.rows

    for record in iter_records(path, unreadable):
        tally.rows += 1
        yield record
