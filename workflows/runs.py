"""Which run a command line means."""

from __future__ import annotations

from pathlib import Path

from calibadv.config import ConfigError
from calibadv.tracking.run_files import CONFIG, METRICS, is_run

RUNS = Path("runs")  # where a name is looked for


def newest_run(holds: str = METRICS) -> Path:
    """The run in `RUNS` in which that file or folder was written last. ValueError where none has it."""
    found = [path for path in RUNS.glob(f"*/{holds}") if is_run(path.parent)]
    if not found:
        raise ValueError(f"{RUNS}/ holds no run of that kind: name a run's folder, or train one (make train)")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def runs_within(folder: Path) -> list[Path]:
    """The folder itself, or, where it is a study's or another folder of runs, those in it that have made a step."""
    if is_run(folder) or not folder.is_dir():
        return [folder]
    found = [path.parent for path in sorted(folder.glob(f"*/{METRICS}")) if is_run(path.parent)]
    return found or [folder]


def resumed_run(given: str) -> Path:
    """The folder of the run that `--resume` names, with the configuration it was started with. ConfigError for none."""
    folder = found_run(given)
    if folder is None or not is_run(folder):
        raise ConfigError(
            f"--resume {given}: neither {given} nor {RUNS / given} is the folder of a run (with a {CONFIG}): name "
            "one, or give the command that the run was started with and --resume alone"
        )
    return folder.absolute()


def found_run(given: str | Path) -> Path | None:
    """The folder of that path, or of that name in `RUNS`; None where neither is there."""
    return next((path for path in (Path(given), RUNS / given) if path.is_dir()), None)
