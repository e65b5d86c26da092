"""The rows of CSV and TSV files with their lines; a quote that is never closed costs its own line, no line after it.

A quoted cell may hold delimiters and line ends. In a file that was written without quoting, a cell that begins with a
quote seems to go on until a later one happens to end with a quote: what lies between would vanish inside a single cell.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from calibadv.data.errors import DataError, OnBad
from calibadv.refusals import short_repr

Line = tuple[int, str]
"""A line's number from 1, and its text with its end."""

_LONGEST_CELL = 2**31 - 1  # csv's own limit, 131,072 characters, is shorter than some passages
_MOST_LINES = 100_000  # of one row


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row, and the line on which it begins."""

    line: int
    cells: list[str]


class _OpenQuote(Exception):
    """A quoted cell goes on over lines that are rows by themselves."""


def delimited_rows(path: object, lines: Iterable[Line], delimiter: str, on_bad: OnBad) -> Iterator[Row]:
    """The rows that are not blank, the first of them with the columns' names.

    A row that cannot be read goes to `on_bad`, and so does each of the lines that it went on over, unless that is a row
    by itself. DataError, whatever `on_bad` does, for a first row that cannot be read or has lines.
    """
    csv.field_size_limit(_LONGEST_CELL)
    source = _Lines(lines, delimiter)
    rows = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        source.begin()
        wrong = ""
        try:
            cells = next(rows, None)
        except csv.Error as error:
            cells, wrong = [], f"the row cannot be read ({_in_words(error)})"
        except _OpenQuote:
            cells, wrong = [], _OPEN
        if cells is None:
            return
        span = list(source.row)
        if not wrong and len(span) > 1 and source.columns > 1 and source.is_row(span[0]) and source.is_row(span[-1]):
            wrong = _OPEN
        if not wrong and span[-1][0] - span[0][0] >= len(span):
            wrong = "a line of the row could not be read"
        if not source.columns:
            if wrong or len(span) > 1:
                raise _bad(path, span[0], wrong or "the names of the columns go on over several lines")
            if any(cell.strip() for cell in cells):
                source.columns = len(cells)
        if not wrong:
            if any(cell.strip() for cell in cells):
                yield Row(span[0][0], cells)
            continue
        on_bad(_bad(path, span[0], wrong))
        for line in span[1:]:
            yield from _alone(path, line, source, on_bad)


_OPEN = "a cell begins with a quote that is not closed on its line, and lines after it are rows by themselves"


def _in_words(error: csv.Error) -> str:
    if "end of data" in str(error):
        return "a cell begins with a quote that is not closed"
    if "new-line character" in str(error):
        return "a carriage return stands outside quotes: lines end at \\n or \\r\\n"
    return str(error)


def _alone(path: object, line: Line, source: _Lines, on_bad: OnBad) -> Iterator[Row]:
    """A line that a broken row went on over, if it is a row of its own; blank ones are none."""
    number, text = line
    if not text.strip():
        return
    if source.is_row(line) and '"' not in text:
        yield Row(number, source.split(text))
        return
    try:
        (cells,) = csv.reader([text], delimiter=source.delimiter, strict=True)
    except (csv.Error, ValueError):
        cells = []
    if len(cells) == source.columns and text.count('"') % 2 == 0 and '"' in text:
        yield Row(number, cells)
    else:
        on_bad(_bad(path, line, "the line stands after a quote that is not closed, and cannot be told to be a row"))


def _bad(path: object, line: Line, found: str) -> DataError:
    return DataError(
        f"{path}, line {line[0]}",
        f"{found}: {short_repr(line[1].rstrip())}",
        'quotes at both ends of a cell, those inside it doubled ("")',
        "Mend the quotes of this row; a file that was written without quoting is better written as jsonl or parquet.",
    )


class _Lines:
    """The lines as `csv` takes them; remembers those of the row at hand."""

    def __init__(self, lines: Iterable[Line], delimiter: str) -> None:
        self.delimiter = delimiter
        self.columns = 0  # known from the first row on
        self.row: deque[Line] = deque()
        self._lines = iter(lines)

    def begin(self) -> None:
        """A new row begins with the next line."""
        self.row.clear()

    def split(self, text: str) -> list[str]:
        """The cells of a line in which quotes mean nothing."""
        return text.rstrip("\r\n").split(self.delimiter)

    def is_row(self, line: Line) -> bool:
        """Whether the line, quotes being letters like others, has a cell a column.

        In a CSV a comma before a blank is one of a sentence, unless the blank stands at the line's begin.
        """
        cells = self.split(line[1])
        return len(cells) == self.columns and not (
            self.delimiter == "," and any(cell[:1].isspace() for cell in cells[1:])
        )

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        between = len(self.row) > 1 and self.columns > 1 and self.is_row(self.row[-1])
        if between or len(self.row) > _MOST_LINES:
            raise _OpenQuote
        line = next(self._lines)
        self.row.append(line)
        return line[1]
