"""Compare methods: `workflows/compare.py STUDY.toml [--report | --dry-run] [--section.key value …]`.

Runs every cell of the study over its seeds, side by side on Ray Tune, then writes its tables and figures below
runs/<study>/. Called again it goes on: finished runs are kept. `--report` only writes tables and figures, of what there
is; `--dry-run` checks every cell, says which of its files are not here, and runs nothing. What a study file holds:
`calibadv/studies/study.py`; an example: `workflows/studies/smoke.toml`.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("compare")  # before what takes seconds to import

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from calibadv.config.command_line import KEYS_TOO, parse
from calibadv.studies.dry_run import check_files, plan_page
from calibadv.studies.grid import Plan, PlannedRun, check_finished, plan_study
from calibadv.studies.live import open_progress
from calibadv.studies.results import State, read_run
from calibadv.studies.study import load_study
from calibadv.studies.tables import Report, write_report
from calibadv.studies.tracked import CONNECT_TIMEOUT_S, child_tags, close_unfinished, open_parent
from calibadv.tracking.mlflow_run import MlflowRun, RunStatus
from calibadv.tracking.run_folder import RunFolder
from workflows.command import run_command
from workflows.shipped import study_file

log = logging.getLogger("workflows.compare")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every run is done. 1: some run failed. 2: the study was refused, nothing was started. 130: interrupted."""
    parser = argparse.ArgumentParser(
        prog="compare.py",
        description=__doc__,
        epilog=KEYS_TOO,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=study_file, help="the study's TOML file")
    parser.add_argument("--report", action="store_true", help="only write tables and figures from the runs' folders")
    parser.add_argument("--dry-run", action="store_true", help="check the study, say what it would run, run nothing")
    known, overrides = parse(parser, arguments)
    plan = plan_study(load_study(known.study), overrides)
    if known.dry_run:
        Console().print(plan_page(plan))
        return 0
    return _say(write_report(plan)) if known.report else compare(plan, known.study)


def compare(plan: Plan, study: Path) -> int:
    """Runs what is not finished yet. Every run is checked before the first one starts."""
    finished = {run.name for run in plan.runs if check_finished(run)}
    waiting = [run for run in plan.runs if run.name not in finished]
    if not waiting:
        return _say(write_report(plan))
    check_files([run.config for run in waiting])
    with ExitStack() as stack:
        stack.enter_context(RunFolder(plan.folder, resume=True))  # its lock: two comparisons must not share a folder
        parent = stack.enter_context(open_parent(plan))
        parent.log_artifact(Path(shutil.copy(study, plan.folder / "study.toml")))
        code = _run(plan, waiting, finished, parent)
        report = write_report(plan)
        for path in (*report.tables, *([plan.folder / "plots"] if report.figures else [])):
            parent.log_artifact(path, "plots" if path.is_dir() else None)
        failed = _say(report)
        if code == 130:
            parent.close(RunStatus.KILLED)
        elif failed:
            parent.close(RunStatus.FAILED)
    return code or failed


def _run(plan: Plan, waiting: Sequence[PlannedRun], finished: set[str], parent: MlflowRun) -> int:
    from workflows.trials import run_trials  # Tune and RLlib: seconds that a wrong study need not wait

    with open_progress(plan, finished) as progress:
        progress.stage("MLflow: the study's run")
        if not parent.wait_connected(CONNECT_TIMEOUT_S):
            log.warning("MLflow does not answer: the study goes on, its runs are tracked without a common parent")
        parent_id = parent.run_id
        progress.stage("Ray and the search app, then the first runs' engines")

        def ended(run: PlannedRun, failure: str) -> None:
            if failure:
                close_unfinished(run, RunStatus.FAILED, child_tags(plan, run, parent_id))
            progress.ended(run, failure)
            write_report(plan, run.cell.group)

        try:
            run_trials(plan, waiting, parent_id, progress.started, ended)
        except KeyboardInterrupt:
            for run in waiting:
                if read_run(plan.folder, run).state is State.UNFINISHED:
                    close_unfinished(run, RunStatus.KILLED, child_tags(plan, run, parent_id))
            return 130
    return 0


def _say(report: Report) -> int:
    """1 where some run failed, else 0; says what was written."""
    log.info("tables: %s; %d figures", ", ".join(map(str, report.tables)), len(report.figures))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
