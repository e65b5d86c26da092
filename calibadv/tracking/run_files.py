"""The files of a run's folder, runs/<name>/, by their names; what else is there is named beside what writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = "config.toml"  # the whole configuration: what has one is a run's folder
METRICS = "metrics.jsonl"  # a line a step
ROLLOUTS = "rollouts.jsonl"  # sampled ones, a line each
PREDICTIONS = "predictions.jsonl"  # of the newest evaluation, a line a question
FIRST_PREDICTIONS = "first_predictions.jsonl"  # of the evaluation before training
RESTARTS = "restarts.jsonl"  # a line for each time that the run started again by itself; no going back takes one away
SUMMARY = "summary.json"  # written last: what has one has finished
CLIPPED_TOKENS = "clipped_tokens.csv"
OUTPUT = "output.log"  # what libraries wrote to the terminal while the live view had it
MODEL = "model"  # a folder
GROUPS = "groups"  # a folder: whole groups, a file a step (`tracking.groups`)
PLOTS = "plots"  # a folder
CHECKPOINTS = "checkpoints"  # a folder, unless they have a place of their own


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a run, under way or finished."""
    return (folder / CONFIG).is_file()


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What the run in the folder finished with; None where it has not finished, or there is none."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary
