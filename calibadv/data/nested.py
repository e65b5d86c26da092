"""Lists of rows and of objects in the shapes that data files give them: as they are, as columns, or written as text.

Hugging Face's data sets store a list of objects as one object of columns, parquet as a list of structs; in CSV both are
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibadv.data.literals import looks_like_literal, parse_literal
from calibadv.refusals import short_repr

Names = Sequence[str]
"""What one column may be called; the first that is there counts."""


def parsed(value: Any) -> Any:
    """The list or object that a text is written as; any other value as it is. ValueError if it cannot be read."""
    return parse_literal(value) if isinstance(value, str) and looks_like_literal(value) else value


def objects_of(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list of them or of an object of columns; [] for None. ValueError for anything else."""
    value = parsed(value)
    if value is None:
        return []
    if isinstance(value, dict):
        columns = {key: parsed(column) for key, column in value.items() if column is not None}
        if not all(isinstance(column, list) for column in columns.values()):
            raise ValueError(f"found {short_repr(value)}")
        if len({len(column) for column in columns.values()}) > 1:
            raise ValueError(f"its columns have {sorted({len(column) for column in columns.values()})} entries")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    objects = [parsed(entry) for entry in value] if isinstance(value, (list, tuple)) else [value]
    for entry in objects:
        if not isinstance(entry, dict):
            raise ValueError(f"found {short_repr(entry)}")
    return objects


def rows_of(value: Any, columns: Sequence[Names], needed: int | None = None) -> list[tuple[Any, ...]]:
    """The rows of a list of rows, of a list of objects or of an object of columns; of each the first `needed` columns.

    [] for None, also in place of every column. ValueError for a row of another length, for an object without a needed
    column, and for anything else: the keys of an object are never taken for its values.
    """
    value, needed = parsed(value), len(columns) if needed is None else needed
    if value is None or (isinstance(value, dict) and all(_named(value, names) is None for names in columns)):
        if not value or any(name in value for names in columns for name in names):
            return []
        raise ValueError(f"found {short_repr(value)}")
    entries = objects_of(value) if isinstance(value, dict) else value
    if not isinstance(entries, (list, tuple)):
        raise ValueError(f"found {short_repr(value)}")
    return [_row(parsed(entry), columns, needed) for entry in entries]


def _row(entry: Any, columns: Sequence[Names], needed: int) -> tuple[Any, ...]:
    if isinstance(entry, dict):
        row = tuple(_named(entry, names) for names in columns[:needed])
        if None in row:
            raise ValueError(f"{short_repr(entry)} has no {' or '.join(map(repr, columns[row.index(None)]))}")
        return row
    if not isinstance(entry, (list, tuple)) or len(entry) != len(columns):
        raise ValueError(f"{short_repr(entry)} has not {len(columns)} entries")
    return tuple(entry[:needed])


def _named(entry: Mapping[str, Any], names: Names) -> Any:
    return next((entry[name] for name in names if entry.get(name) is not None), None)
