"""Which run a command line means."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")  # where a name is looked for


def newest_run() -> Path:
    """The run in `RUNS` whose metrics were written last. ValueError where there is none."""
    found = [path for path in RUNS.glob("*/metrics.jsonl") if path.is_file()]
    if not found:
        raise ValueError(f"{RUNS}/ holds no run that has made a step: name a run's folder, or train one (make train)")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def found_run(given: str | Path) -> Path | None:
    """The folder of that path, or of that name in `RUNS`; None where neither is there."""
    return next((path for path in (Path(given), RUNS / given) if path.is_dir()), None)
