"""clipped_tokens.csv of a run: which tokens the clip acts on, most often first (CalibAdv appendix E)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path


def write_clipped_table(path: Path, counts: Mapping[int, int], decode: Callable[[int], str], top: int = 50) -> Path:
    """Writes a row (id, token, count) for each of the `top` most often clipped tokens, equal counts by id.

    `counts`: token id -> how often the clip acted on it.
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "token", "count"))
        writer.writerows((token, decode(token), count) for token, count in ranked)
    return path
