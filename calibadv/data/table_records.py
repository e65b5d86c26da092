"""The rows of tables as records: parquet by batches, CSV and TSV by lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibadv.data.delimited import delimited_rows
from calibadv.data.errors import DataError, OnBad
from calibadv.data.reading import kind_of, numbered_lines
from calibadv.data.record import Record
from calibadv.json_lines import json_value
from calibadv.refusals import short_repr

_BATCH_ROWS = 1024
_BOM = "\ufeff"  # of a CSV file that was read without taking it off, in its first column's name


def parquet_records(path: Path, on_bad: OnBad) -> Iterator[Record]:
    """The rows of a parquet file. One that breaks off in the middle goes to `on_bad` and ends there."""
    from pyarrow import ArrowException, parquet

    if not path.is_file():
        raise DataError(str(path), "no such file", "a parquet file", "Check the path.")
    number = 0
    try:
        file = parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise _unreadable(str(path), error) from error
    with file:
        batches = file.iter_batches(batch_size=_BATCH_ROWS)
        while True:
            try:
                batch = next(batches, None)
            except (ArrowException, OSError) as error:
                on_bad(_unreadable(f"{path}, row {number + 1}", error, file.metadata.num_rows - number))
                return
            if batch is None:
                return
            named = batch.rename_columns([name.removeprefix(_BOM) for name in batch.schema.names])
            yield from _batch_rows(path, named, number, on_bad)
            number += batch.num_rows


def _batch_rows(path: Path, batch: Any, before: int, on_bad: OnBad) -> Iterator[Record]:
    """The rows of one record batch; `before` rows of the file came before it."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows > 1:  # the whole batch does not say which of its rows it was
            for row in range(batch.num_rows):
                yield from _batch_rows(path, batch.slice(row, 1), before + row, on_bad)
            return
        place = f"{path}, row {before + 1}"
        on_bad(DataError(place, f"a text is not UTF-8 ({error})", "UTF-8 text", "Write the file anew as UTF-8."))
        return
    for number, fields in enumerate(rows, start=before + 1):
        yield Record(f"{path}, row {number}", fields)


def _unreadable(place: str, error: Exception, rows: int = 1) -> DataError:
    why = " ".join(str(error).split())
    rest = f", and with it the rest, {rows:,} rows" if rows > 1 else ""
    return DataError(place, f"unreadable ({why}){rest}", "a whole parquet file", "Download it again.", rows)


def table_records(path: Path, on_bad: OnBad) -> Iterator[Record]:
    """The rows of a CSV or TSV file, whose first line names the columns; a cell that is a JSON list is read as one.

    An empty cell is None. Rows with too few or too many cells go to `on_bad`.
    """
    columns: list[str] | None = None
    delimiter = "\t" if kind_of(path) == ".tsv" else ","
    for row in delimited_rows(path, numbered_lines(path, on_bad), delimiter, on_bad):
        place = f"{path}, line {row.line}"
        if columns is None:
            columns = _columns(place, row.cells)
        elif len(row.cells) != len(columns):
            on_bad(
                DataError(
                    place,
                    f"the row has {len(row.cells)} cells, {short_repr(row.cells)}",
                    f"{len(columns)}, for the columns {short_repr(columns)}",
                    "Quote cells that hold the delimiter.",
                )
            )
        else:
            yield Record(place, {name: _cell(cell) for name, cell in zip(columns, row.cells, strict=True)})


def _columns(place: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names):
        raise DataError(
            place, f"the columns {short_repr(names)}", "different names in the first line", "Name each column once."
        )
    return names


def _cell(cell: str) -> Any:
    text = cell.strip()
    if text.startswith("["):
        try:
            value = json_value(text)
        except ValueError:
            return text  # a text may begin with a bracket
        return value if isinstance(value, list) else text
    return text or None
