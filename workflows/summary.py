"""What a finished run came to: summary.json, and what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from calibadv.config import Config
from calibadv.tracking.record import RolloutRecord
from calibadv.tracking.series import History, collapse_point
from calibadv.tracking.view import TIME_PARTS, RunSummary

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


def view_summary(
    summary: Mapping[str, Any], folder: Path, rollout: RolloutRecord | None, mlflow_uri: str
) -> RunSummary:
    """The same for the terminal."""
    return RunSummary(
        before={name: summary[f"{name}_before"] for name in _SHOWN},
        after={name: summary[f"{name}_after"] for name in _SHOWN},
        steps=summary["steps"],
        seconds=summary["wall_s"],
        folder=folder,
        rollout=rollout,
        hints=(f"mlflow ui --backend-store-uri {mlflow_uri}",),
    )
