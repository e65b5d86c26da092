"""A table in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd


def markdown(table: pd.DataFrame, words: Collection[str]) -> str:
    """The table in Markdown, without a last line end; columns of `words` are flush left, numbers flush right.

    Floats get three decimals, whole numbers thousands separators. "" without rows.
    """
    if table.empty:
        return ""
    columns = list(map(str, table.columns))
    rule = ["---" if name in words else "---:" for name in columns]
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows))


def markdown_rows(head: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    """The table of these rows in Markdown, its last line ended; columns with a text in them are flush left.

    Raises `ValueError` for a row of another length than the head.
    """
    table = pd.DataFrame(list(rows), columns=list(head), dtype=object)
    words = [str(name) for name in table if any(isinstance(value, str) for value in table[name])]
    return markdown(table, words) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
