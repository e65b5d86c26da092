"""A table in Markdown."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd


def markdown(table: pd.DataFrame, words: Collection[str]) -> str:
    """The table of texts in Markdown, without a last line end; columns of `words` are flush left, numbers flush right.

    "" without rows.
    """
    if table.empty:
        return ""
    columns = list(map(str, table.columns))
    rule = ["---" if name in words else "---:" for name in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *table.itertuples(index=False)))
