"""Tables: a block a row, which names its columns; and CSV and TSV files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest

from calibadv.data.delimited import delimited_rows
from calibadv.data.documents.blocks import Block, Unreadable, Why
from calibadv.data.documents.text import decoded
from calibadv.data.errors import DataError, refuse

Numbered = tuple[int, list[str]]
"""A row's number and its cells."""


def row_blocks(rows: Iterable[Numbered], place: str) -> Iterator[Block]:
    """A row as "column: value" of the first one, and as its values where there is no other; blank ones are none.

    `place`: what stands before a row's number in its place.
    """
    filled = ((number, cells) for number, cells in rows if any(cells))
    first = next(filled, None)
    if first is None:
        return
    second = next(filled, None)
    if second is None:
        yield Block(" | ".join(filter(None, first[1])), f"{place}{first[0]}")
        return
    for number, cells in chain((second,), filled):
        named = zip_longest(first[1], cells, fillvalue="")
        said = [f"{column}: {value}" if column else value for column, value in named if value]
        yield Block("; ".join(said), f"{place}{number}")


def csv_blocks(content: bytes) -> Iterator[Block]:
    """The rows of a file whose cells are parted by what its first line has most of: commas, semicolons or tabs.

    Unreadable for a quote that is not closed: what is behind it cannot be told to be rows.
    """
    text = decoded(content)
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    lines = ((number, f"{line}\n") for number, line in enumerate(text.split("\n"), start=1))
    try:
        rows = delimited_rows("the file", lines, delimiter, refuse)
        yield from row_blocks(((row.line, [" ".join(cell.split()) for cell in row.cells]) for row in rows), "line=")
    except DataError as error:
        raise Unreadable(Why.DAMAGED, str(error)) from error
