"""One page a run: `workflows/report.py [RUN …] [--out FILE] [--groups N] [--judge URL] [--log]`.

Writes one HTML file that needs no server and nothing from outside, and opens from a mail: what the run is and what came
of it, its curves with collapse and alarms, the evaluations before and after, its rollouts with every method's credit,
faults, checkpoints and configuration. Of several runs, or of a study's folder, it has the methods side by side too.
Needs no model and no GPU.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("report")  # before what takes seconds to import

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from workflows.command import command_parser, run_command
from workflows.judge_options import add_judge
from workflows.runs import RUNS, found_run, newest_run, runs_within
from workflows.shipped import shipped_recipes

log = logging.getLogger("workflows.report")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0; ValueError for a run that is not there, or that has made no step. 1: --log, and MLflow lacks it still."""
    asked = _parser().parse_args(arguments)
    with loading():
        from calibadv.report.write import NAME, write_report
        from calibadv.rewards.judge import Endpoint
        from calibadv.tracking.catch_up import catch_up
    given = [found_run(run) or Path(run) for run in asked.runs] or [newest_run()]
    folders = [run for folder in given for run in runs_within(folder)]
    if asked.log and len(folders) > 1:
        raise ValueError(f"--log gives the page to its run in MLflow, and {len(folders)} runs are named: name one")
    if asked.log and asked.out:
        raise ValueError("--log gives the run's own report.html to MLflow: leave out --out")
    to = asked.out or (given[0] / NAME if len(given) == 1 else Path(NAME))
    judge = Endpoint(asked.judge, asked.judge_model) if asked.judge else None
    write_report(folders, to, recipes=shipped_recipes(), groups=asked.groups, limit_mb=asked.limit_mb, judge=judge)
    log.info("%s: %.1f MB", to, to.stat().st_size / 1e6)
    return int(asked.log and catch_up(folders[0], artifact=to) > 0)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help=f"the folder of a run or of a study, or its name in {RUNS}/; none: the newest there",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in the run's or the study's folder, or here"
    )
    parser.add_argument(
        "--groups",
        type=int,
        default=240,
        metavar="N",
        help="stored groups that are shown and credited by every method, evenly over the steps (%(default)s)",
    )
    parser.add_argument(
        "--limit-mb", type=float, default=10.0, metavar="MB", help="fewer groups where it were larger (%(default)g)"
    )
    parser.add_argument("--log", action="store_true", help="as an artifact of the run's MLflow run, too")
    add_judge(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
