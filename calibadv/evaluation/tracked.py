"""An evaluation in MLflow: a run a model, with a metric a figure and set, the tables and the answers as artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibadv.evaluation.identity import search_identity
from calibadv.evaluation.models import DIALOGUE, EvaluatedModel
from calibadv.evaluation.plan import Plan
from calibadv.evaluation.results import METRICS, ModelResult
from calibadv.tracking.database import store_uri
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.provenance import method_color
from calibadv.tracking.run_files import PREDICTIONS


def open_run(plan: Plan, model: EvaluatedModel) -> MlflowRun:
    """The model's run, the same one again for an evaluation that goes on. Training runs stand in the same store."""
    config = model.config
    runs = config.run.folder.resolve()
    if not config.tracking.mlflow_uri:
        runs.mkdir(parents=True, exist_ok=True)
    run = MlflowRun(
        plan.out / model.name,
        experiment=config.tracking.experiment,
        run_name=f"evaluation-{model.name}",
        uri=config.tracking.mlflow_uri or store_uri(runs),
        tags={
            "task": "evaluation",
            "method": config.method.name,
            "evaluation": plan.out.name,
            "mlflow.runColor": method_color(config.method.name),
        },
    )
    run.log_params(
        {
            "model": str(model.folder),
            "corpus": str(plan.corpus),
            "search": search_identity(config),
            "dialogue": {name: getattr(config.rollout, name) for name in DIALOGUE},
            "engine": config.rollout.engine,
        }
    )
    return run


def log_result(run: MlflowRun, plan: Plan, model: EvaluatedModel, result: ModelResult) -> None:
    """The figures of this call's sets as `eval/<set>/<figure>`, their mean F1 as `eval/mean/f1`, and the answers."""
    names = [questions.name for questions in plan.sets if questions.name in result.sets]
    metrics = {
        f"eval/{name}/{figure}": value
        for name in names
        for figure, value in result.sets[name].figures.metrics().items()
    }
    mean = result.mean(names)
    if mean is not None:
        metrics |= {"eval/mean/f1": mean.mean, "eval/mean/f1_low": mean.low, "eval/mean/f1_high": mean.high}
    run.log_metrics(0, metrics)
    for name in names:
        for file in (PREDICTIONS, METRICS):
            run.log_artifact(plan.out / model.name / name / file, name)


def log_tables(run: MlflowRun, tables: Sequence[Path]) -> None:
    """The tables of the whole folder, over those of an earlier call."""
    for table in tables:
        run.log_artifact(table)
