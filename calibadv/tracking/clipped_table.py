"""clipped_tokens.csv of a run: which tokens the clip acts on, most often first (CalibAdv appendix E)."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path

from calibadv.diagnostics import ClippedToken


def write_clipped_table(path: Path, table: Iterable[ClippedToken]) -> Path:
    """Writes a row (id, token, count) for each clipped token."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(ClippedToken))
        writer.writerows(astuple(row) for row in table)
    return path
