"""Rows of numbers as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    """The table, a line a row. Floats get three decimals, whole numbers thousands separators.

    Raises `ValueError` for a row of another length than the head.
    """
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    for line in lines:
        if len(line) != len(head):
            raise ValueError(f"a row of {len(line)} cells below a head of {len(head)}: {line}")
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else value
