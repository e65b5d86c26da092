"""A planned study, run to its tables: what is not finished is trained, under one MLflow run, and all is reported."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from calibadv.studies.dry_run import check_files
from calibadv.studies.grid import Plan, PlannedRun, check_finished, day_of
from calibadv.studies.results import State, read_run
from calibadv.studies.tables import Report, write_report
from calibadv.studies.tracked import CONNECT_TIMEOUT_S, child_tags, close_unfinished, open_parent
from calibadv.tracking.mlflow_run import MlflowRun, RunStatus
from calibadv.tracking.run_folder import RunFolder
from calibadv.views.study import open_study_view

log = logging.getLogger("workflows.compare")


def compare(plan: Plan, study: Path) -> int:
    """Runs what is not finished yet; the exit code. Every run is checked before the first one starts."""
    finished = {run.name for run in plan.runs if check_finished(run)}
    waiting = [run for run in plan.runs if run.name not in finished]
    if not waiting:
        return report(plan)
    waiting = check_files(waiting, day_of(run for run in plan.runs if run.name in finished))
    checked = {run.name: run for run in waiting}
    plan = replace(plan, runs=tuple(checked.get(run.name, run) for run in plan.runs))
    with ExitStack() as stack:
        stack.enter_context(RunFolder(plan.folder, resume=True))  # its lock: two comparisons must not share a folder
        parent = stack.enter_context(open_parent(plan))
        parent.log_artifact(Path(shutil.copy(study, plan.folder / "study.toml")))
        code = _run(plan, waiting, finished, parent)
        written = write_report(plan)
        for path in (*written.tables, *([plan.folder / "plots"] if written.figures else [])):
            parent.log_artifact(path, "plots" if path.is_dir() else None)
        failed = _say(written)
        if code == 130:
            parent.close(RunStatus.KILLED)
        elif failed:
            parent.close(RunStatus.FAILED)
    return code or failed


def _run(plan: Plan, waiting: Sequence[PlannedRun], finished: set[str], parent: MlflowRun) -> int:
    from workflows.trials import run_trials  # Tune and RLlib: seconds that a finished study need not wait

    with open_study_view(plan.runs, finished) as view:
        view.stage("MLflow: the study's run")
        if not parent.wait_connected(CONNECT_TIMEOUT_S):
            log.warning("MLflow does not answer: the study goes on, its runs are tracked without a common parent")
        parent_id = parent.run_id
        view.stage("Ray and the search app, then the first runs' engines")

        def ended(run: PlannedRun, failure: str) -> None:
            if failure:
                close_unfinished(run, RunStatus.FAILED, child_tags(plan, run, parent_id))
            view.ended(run, failure)
            write_report(plan, run.cell.group)

        try:
            run_trials(plan, waiting, parent_id, view.started, ended)
        except KeyboardInterrupt:
            for run in waiting:
                if read_run(plan.folder, run).state is State.UNFINISHED:
                    close_unfinished(run, RunStatus.KILLED, child_tags(plan, run, parent_id))
            return 130
    return 0


def report(plan: Plan) -> int:
    """Writes tables and figures of what there is; 1 where some run failed, else 0."""
    return _say(write_report(plan))


def _say(written: Report) -> int:
    """1 where some run failed, else 0; says what was written."""
    log.info("tables: %s; %d figures", ", ".join(map(str, written.tables)), len(written.figures))
    return 1 if written.failed else 0
