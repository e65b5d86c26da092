"""report.html of a run or of several: read, credited again, packed, and kept below a size."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from calibadv.config import Config
from calibadv.files import write_text
from calibadv.report.data import page_data
from calibadv.report.html import page
from calibadv.report.reading import read_run
from calibadv.rewards.judge import Endpoint

log = logging.getLogger(__name__)

NAME = "report.html"
GROUPS = 240  # shown and credited by every method: 1,200 rollouts of five, some 20 s of one core


def write_run_report(folder: Path, recipes: Mapping[str, Config] | None = None) -> Path:
    """The page of one run, in its folder."""
    return write_report([folder], folder / NAME, recipes=recipes)


def write_report(
    folders: Sequence[Path],
    to: Path,
    *,
    recipes: Mapping[str, Config] | None = None,
    groups: int = GROUPS,
    limit_mb: float = 10.0,
    judge: Endpoint | None = None,
) -> Path:
    """Writes the page of the runs in `folders` to the file `to`, in one move, and returns it.

    `recipes`: by name, of which the nearest is what a run's configuration is compared with; none: the defaults.
    `groups`: at most so many stored groups are shown, evenly over the steps, half of them again and again where the
    file were above `limit_mb`. `judge`: is asked about some of their searches, once, when it is known which are shown:
    its few lines are in no limit. ValueError for a folder that holds no run, or none that has made a step.
    """
    if not folders:
        raise ValueError("no run is named: name a folder runs/<name> at least")
    if groups < 0 or limit_mb <= 0:
        raise ValueError(f"groups = {groups}, limit_mb = {limit_mb:g}: expected 0 at least, and above 0")
    runs = [read_run(folder) for folder in folders]
    while True:
        html = page(page_data(runs, recipes or {}, most_groups=groups))
        size_mb = len(html.encode()) / 1e6
        if size_mb <= limit_mb or not groups:
            break
        groups //= 2
        log.info("the page would have %.1f MB: it shows %d groups at most", size_mb, groups)
    if judge is not None:
        html = page(page_data(runs, recipes or {}, most_groups=groups, judge=judge))
    to.parent.mkdir(parents=True, exist_ok=True)
    return write_text(to, html)
