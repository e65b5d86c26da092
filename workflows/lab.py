"""The laboratory: `python workflows/lab.py STUDY.toml [STUDY.toml …] [--jobs 2] [--report]`.

Makes every run of the studies, one study after the other, that is not finished yet, on the CPU, minutes each; called
again it goes on where it stopped. Finished runs join a study's table in `--results`, and what stands there is not made
again. `--report` makes no run: it writes table and figure of what there is. What a study file holds:
`calibadv/lab/study.py`; examples: `workflows/studies/lab-*.toml`.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("lab")  # before what takes seconds to import

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from calibadv.lab.report import stored, write_drift, write_report, write_signals, write_watched
from calibadv.lab.results import is_stored
from calibadv.lab.study import Study, load_study, run_study
from calibadv.lab.tasks import TASKS
from calibadv.lab.warm_start import make_start
from workflows.command import command_parser, run_command

STORED = Path("docs/lab")  # a checkout's runs
log = logging.getLogger("workflows.lab")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every run ended. 1: some run failed. 2: the study was refused. 130: interrupted."""
    parser = command_parser(__doc__, prog="lab.py")
    parser.add_argument("study", type=Path, nargs="*", help="TOML files of studies, made one after the other")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a core each (default 2)")
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="where runs are made (default runs/lab)")
    parser.add_argument(
        "--results",
        type=Path,
        default=STORED if STORED.is_dir() else Path("runs/lab-results"),
        help=f"where tables and figures are kept (default: {STORED} in a checkout, elsewhere runs/lab-results)",
    )
    parser.add_argument("--report", action="store_true", help="make no run, only write table and figure")
    parser.add_argument("--make-start", type=Path, metavar="FILE", help="make the policy that runs start from, again")
    parser.add_argument("--task", choices=TASKS, default="plain", help="whose start --make-start makes (default plain)")
    parser.add_argument("--watched", action="store_true", help="what the sentinel would have said of all stored runs")
    parser.add_argument("--signals", action="store_true", help="which metric tells of garbling or collapse beforehand")
    parser.add_argument("--drift", action="store_true", help="which way each credit pushes the start, without a run")
    given = parser.parse_args(arguments)
    if given.make_start:
        make_start(
            given.make_start,
            TASKS[given.task],
            lambda update, loss: log.info("update %d: %.3f nats a token", update, loss),
        )
        return 0
    for asked, write in ((given.watched, write_watched), (given.signals, write_signals), (given.drift, write_drift)):
        if asked:
            log.info("%s", write(given.results))
            return 0
    if not given.study:
        parser.error("a study file is needed, e.g. workflows/studies/lab-mismatch.toml")
    failed = 0
    for study in [load_study(path) for path in given.study]:  # all are checked before the first is made
        folder = given.folder / study.name
        failed += 0 if given.report else make(study, folder, given.results, given.jobs)
        log.info("%s", write_report(study, folder, given.results))
    return 1 if failed else 0


def make(study: Study, folder: Path, results: Path, jobs: int) -> int:
    """Makes what the study's table lacks; returns how many runs failed."""
    store = stored(study, results)
    left = [planned for planned in study.runs if not is_stored(store, planned)]
    log.info("%s: %d of %d runs are left; %s", study.name, len(left), len(study.runs), folder)
    failed = 0
    for number, made in enumerate(run_study(left, folder, jobs=jobs), start=1):
        if made.error:
            failed += 1
            log.error("%s: %s", made.planned.folder, made.error)
            continue
        told = (number, len(left), made.planned.folder, made.steps, made.reason, made.cpu_seconds)
        log.info("%d of %d  %s  %d steps (%s), %.0f CPU seconds", *told)
    return failed


if __name__ == "__main__":
    sys.exit(run_command(main))
