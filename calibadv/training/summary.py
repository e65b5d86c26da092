"""What a finished run came to: summary.json, and what the terminal shows of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from calibadv.config import Config
from calibadv.methods import all_params
from calibadv.section import flat
from calibadv.tracking.database import store_uri
from calibadv.tracking.pages import BASE, run_page
from calibadv.tracking.provenance import ROOT
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.series import History, collapse_point
from calibadv.views.summary import TIME_PARTS, NextSteps, RunSummary

LOGPROB_DIFFS = ("sync/logprob_diff_mean", "eval/logprob_diff_mean")
_SHOWN = ("f1", "em", "format", "searches")  # of the first and the last evaluation


def run_summary(
    config: Config,
    whole_history: History,
    evaluations: Mapping[int, Mapping[str, float]],
    *,
    wall_s: float,
    mlflow_run: str | None,
    restarts: int = 0,
) -> dict[str, Any]:
    """The figures of a run that made all its steps, JSON-ready."""
    history = [line for line in whole_history if line["step"] > 0]
    before, after = evaluations[0], evaluations[config.run.steps]
    step_s = sum(line["time/step_s"] for line in history)
    diffs = [line[name] for line in history for name in LOGPROB_DIFFS if name in line]
    return {
        "method": config.method.name,
        "params": config.method.params,
        "seed": config.run.seed,
        "steps": config.run.steps,
        **{f"{name}_before": before[f"eval/{name}"] for name in _SHOWN},
        **{f"{name}_after": after[f"eval/{name}"] for name in _SHOWN},
        "wall_s": wall_s,
        "time_split": {name: sum(line[f"time/{name}_s"] for line in history) / step_s for name in TIME_PARTS},
        "logprob_diff_mean": fmean(diffs),
        "logprob_diff_worst_step": max(diffs),
        "collapse_step": collapse_point(history),
        "engine_share_max": max(line["rollout/engine_share_max"] for line in history),
        "infra_failed": sum(line["rollout/infra_failed_count"] for line in history),
        "skipped_updates": sum(line["learner/skipped_updates"] for line in history),
        "restarts": restarts,
        "engine": config.rollout.engine,
        "mlflow_run_id": mlflow_run,
    }


def logged_params(config: Config) -> dict[str, Any]:
    """The configuration as MLflow's parameters, every parameter of the method among them."""
    params = all_params(config.method.name, config.method.params)
    return config.flat() | flat(params, "method.params.")


def title(config: Config) -> str:
    """The first line of the run's description."""
    model = Path(config.model.path).name
    return f"**{config.method.name}**, seed {config.run.seed}, {config.run.steps} steps of {model}"


def before_and_after(summary: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """The held-out figures of both evaluations, by name."""
    before, after = ({name: summary[f"{name}_{when}"] for name in _SHOWN} for when in ("before", "after"))
    return before, after


def next_steps(runs: Path, uri: str, experiment_id: str | None, run_id: str | None) -> NextSteps:
    """How to see the run in MLflow. The command works as it is, given in the current folder."""
    server = uri.startswith(("http://", "https://"))
    page = "" if experiment_id is None or run_id is None else run_page(uri if server else BASE, experiment_id, run_id)
    return NextSteps("", page or uri) if server else NextSteps(_opens_pages(runs, uri), page)


def _opens_pages(runs: Path, uri: str) -> str:
    if uri != store_uri(runs):
        return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    if not (ROOT / "Makefile").is_file():
        return shlex.join([sys.executable, "-m", "calibadv.tracking.pages", str(runs)])
    make = ["make", *([] if Path.cwd() == ROOT else ["-C", str(ROOT)]), "mlflow"]
    return shlex.join([*make, *([] if runs == ROOT / "runs" else [f"RUNS={runs}"])])


def final_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """A finished run's figures under names that every run has, for tables of runs: final/f1, final/em …

    No `final/collapse_step` means that F1 never fell: a number for "never" would be read as a step.
    """
    metrics = {f"final/{name}": float(summary[f"{name}_after"]) for name in _SHOWN}
    metrics["final/wall_s"] = float(summary["wall_s"])
    collapse = summary["collapse_step"]
    return metrics if collapse is None else metrics | {"final/collapse_step": float(collapse)}


def view_summary(
    summary: Mapping[str, Any], folder: Path, rollout: RolloutRecord | None, what_next: NextSteps
) -> RunSummary:
    """The same for the terminal."""
    before, after = before_and_after(summary)
    return RunSummary(
        before=before,
        after=after,
        steps=summary["steps"],
        seconds=summary["wall_s"],
        folder=folder,
        rollout=rollout,
        next=what_next,
    )
