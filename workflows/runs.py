"""Which run a command line means."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")  # where a name is looked for


def found_run(given: str | Path) -> Path | None:
    """The folder of that path, or of that name in `RUNS`; None where neither is there."""
    return next((path for path in (Path(given), RUNS / given) if path.is_dir()), None)
