"""What an evaluation was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for, checked for form only."""

    models: tuple[str, ...]
    sets: tuple[tuple[str, str], ...]  # (name, file or "pocket"), the table's columns in order
    corpus: str
    recipe: Path | None
    out: Path | None  # None: "evaluation" beside the runs
    questions: int | None  # the first of each set; None: all
    overrides: tuple[str, ...]
