"""The table of clipped tokens."""

from __future__ import annotations

import csv
from pathlib import Path

from calibadv.tracking.clipped_table import write_clipped_table


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_clipped_tokens_rank_by_count_and_equal_counts_by_id(tmp_path: Path) -> None:
    path = write_clipped_table(tmp_path / "table.csv", {9: 1, 70: 2, 66: 2}, chr, top=2)
    assert rows(path) == [["id", "token", "count"], ["66", "B", "2"], ["70", "F", "2"]]
    assert rows(write_clipped_table(path, {}, chr)) == [["id", "token", "count"]]
