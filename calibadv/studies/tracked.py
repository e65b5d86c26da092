"""The study in MLflow: one parent run with the tables and figures, and under it a run for every cell and seed."""

from __future__ import annotations

from calibadv.studies.grid import Plan, PlannedRun
from calibadv.tracking.mlflow_run import MlflowRun, RunStatus
from calibadv.tracking.target import STATE

CONNECT_TIMEOUT_S = 90.0  # the first connection makes the database
_CLOSE_TIMEOUT_S = 20.0


def open_parent(plan: Plan) -> MlflowRun:
    """The study's own run. The same one again for a study that goes on."""
    tracking = plan.runs[0].config.tracking
    return MlflowRun(
        plan.folder,
        experiment=tracking.experiment,
        run_name=plan.study.name,
        uri=tracking.mlflow_uri,
        tags={"study": plan.study.name},
    )


def child_tags(plan: Plan, run: PlannedRun, parent_id: str | None) -> dict[str, str]:
    """What a run is found and grouped by in MLflow. Without a parent (MLflow was down) it stands alone."""
    tags = {
        "method": run.config.method.name,
        "seed": str(run.seed),
        "study": plan.study.name,
        "cell": run.cell.name,
        "group": ",".join(run.cell.group),
    }
    return tags if parent_id is None else tags | {"mlflow.parentRunId": parent_id}


def close_unfinished(run: PlannedRun, status: RunStatus, tags: dict[str, str]) -> None:
    """Ends, in MLflow, a run whose process was killed and could not do so; nothing for one that never began."""
    if (run.folder / STATE).exists():
        tracking = run.config.tracking
        MlflowRun(
            run.folder, experiment=tracking.experiment, run_name=run.name, uri=tracking.mlflow_uri, tags=tags
        ).close(status, _CLOSE_TIMEOUT_S)
