"""A run as the page's data: its head, and its rollouts, which are unpacked when the run is looked at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibadv.config import Config
from calibadv.methods import all_params
from calibadv.report.comparison import compared
from calibadv.report.curves import alarm_spans, charts_of, columns_of, rollbacks
from calibadv.report.evaluation import evaluation_of
from calibadv.report.faults import faults_of, time_outside_steps
from calibadv.report.reading import RunFiles
from calibadv.report.settings import settings_of
from calibadv.report.several import cells_of
from calibadv.rewards.judge import Endpoint
from calibadv.tracking.series import collapse_point
from calibadv.views.summary import TIME_PARTS


@dataclass(frozen=True, slots=True)
class PageData:
    """`head` for all runs; of each run its rollouts, None where it has stored none."""

    head: dict[str, Any]
    rollouts: list[dict[str, Any] | None]


def page_data(
    runs: Sequence[RunFiles], recipes: Mapping[str, Config], *, most_groups: int, judge: Endpoint | None = None
) -> PageData:
    """All that the page of these runs shows. `most_groups`: of all runs together."""
    share = most_groups // len(runs)
    rollouts = [compared(run, share, judge) for run in runs]
    heads = [_head(run, recipes) for run in runs]
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    cells = [asdict(cell) for cell in cells_of(runs)] if len(runs) > 1 else []
    charts = [asdict(chart) for chart in charts_of([row for run in runs for row in run.history])]
    return PageData({"written": written, "runs": heads, "cells": cells, "charts": charts}, rollouts)


def _head(run: RunFiles, recipes: Mapping[str, Config]) -> dict[str, Any]:
    config, history = run.config, run.history
    steps = [row for row in history if row["step"] > 0]
    return {
        "name": run.name,
        "method": config.method.name,
        "params": {name: str(value) for name, value in all_params(config.method.name, config.method.params).items()},
        "seed": config.run.seed,
        "model": Path(config.model.path).name,
        "engine": config.rollout.engine,
        "steps": int(steps[-1]["step"]) if steps else 0,
        "planned": config.run.steps,
        "finished": run.summary is not None,
        "rollouts_a_step": config.rollouts_per_step,
        "tokens": sum(row.get("rollout/tokens_sampled", 0.0) for row in steps),
        "wall_s": run.summary["wall_s"] if run.summary else None,
        "step_s": sum(row.get("time/step_s", 0.0) for row in steps),
        "outside_s": time_outside_steps(run),
        "time": {part: sum(row.get(f"time/{part}_s", 0.0) for row in steps) for part in TIME_PARTS},
        "evaluation": asdict(evaluation_of(run)),
        "settings": asdict(settings_of(config, recipes)),
        "charts": [asdict(chart) for chart in charts_of(history)],
        "columns": columns_of(history),
        "collapse": collapse_point(history),
        "alarms": [asdict(span) for span in alarm_spans(history, config.sentinel)],
        "rollbacks": rollbacks(history),
        "sentinel": config.sentinel.action,
        "faults": [asdict(fault) for fault in faults_of(run)],
        "checkpoints": [asdict(checkpoint) for checkpoint in run.checkpoints],
        "checkpoints_at": "elsewhere" if config.checkpoint.uri else "checkpoints/" if config.checkpoint.every else "",
        "groups_stored": config.tracking.store_groups,
    }
