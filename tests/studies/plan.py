"""A study whose runs' folders are written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from calibadv.config import to_toml
from calibadv.studies.grid import Plan, PlannedRun, plan_study
from calibadv.studies.study import load_study
from tests.build import jsonl

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"
CELLS = """
[[cell]]
name = "grpo"
method = "grpo"
group = ["table", "lambda"]

[[cell]]
name = "calibadv"
method = "calibadv"
group = ["table", "ladder", "lambda"]

[[cell]]
name = "calibadv-half"
method = "calibadv"
params = { lam = 0.5 }
seeds = [7]
group = "lambda"
"""


def study_file(folder: Path, cells: str = CELLS, more: str = "") -> Path:
    """A study over the pocket recipe with two seeds; `more` stands before the cells."""
    folder.mkdir(exist_ok=True)
    path = folder / "study.toml"
    head = f'name = "mine"\nrecipe = "{RECIPES / "pocket.toml"}"\nseeds = [0, 1]\n'
    path.write_text(f'{head}settings.run.folder = "{folder / "runs"}"\n{more}\n{cells}', encoding="utf-8")
    return path


def make_plan(folder: Path, cells: str = CELLS, more: str = "") -> Plan:
    return plan_study(load_study(study_file(folder, cells, more)))


def history(f1: Sequence[float], **metrics: float) -> list[dict[str, float]]:
    """Steps 1, 2, … with these training F1 values and, in each step, `metrics` ("__" for "/")."""
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return [{"step": float(step), "reward/f1": value, **named} for step, value in enumerate(f1, start=1)]


def write_run(
    run: PlannedRun,
    rows: Sequence[dict[str, float]],
    *,
    f1: float | None = None,
    answers: dict[str, float] | None = None,
) -> None:
    """The folder of a run: finished with final F1 `f1`, or not finished."""
    run.folder.mkdir(parents=True)
    (run.folder / "config.toml").write_text(to_toml(run.config))
    jsonl(run.folder / "metrics.jsonl", *rows)
    if answers:
        lines = [json.dumps({"id": question, "f1": value}) + "\n" for question, value in answers.items()]
        (run.folder / "predictions.jsonl").write_text("".join(lines))
    if f1 is not None:
        summary = {"f1_after": f1, "em_after": f1 / 2, "format_after": 1.0, "searches_after": 1.5, "wall_s": 90.0}
        (run.folder / "summary.json").write_text(json.dumps(summary))
