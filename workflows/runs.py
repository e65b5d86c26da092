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


def runs_within(folder: Path) -> list[Path]:
    """The folder itself, or, where it is a study's or another folder of runs, those in it that have made a step."""
    if (folder / "config.toml").is_file() or not folder.is_dir():
        return [folder]
    found = [path.parent for path in sorted(folder.glob("*/metrics.jsonl")) if (path.parent / "config.toml").is_file()]
    return found or [folder]


def found_run(given: str | Path) -> Path | None:
    """The folder of that path, or of that name in `RUNS`; None where neither is there."""
    return next((path for path in (Path(given), RUNS / given) if path.is_dir()), None)


def newest_run(folder: Path = RUNS) -> Path:
    """The run of the folder whose model was written last. FileNotFoundError where none has one."""
    runs = [path.parent for path in folder.glob("*/model") if (path.parent / "config.toml").is_file()]
    if not runs:
        raise FileNotFoundError(
            f"no run in {folder}/ has a model yet: train one (`make train`), or name a run or model"
        )
    return max(runs, key=lambda run: ((run / "model").stat().st_mtime, run.name))
