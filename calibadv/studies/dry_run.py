"""What a study would run, and whether it can: its cells, the files that are not here, and those that are, read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibadv.cluster.prompts import with_date
from calibadv.config import POCKET, Config
from calibadv.model_source import in_cache, to_fetch
from calibadv.studies.grid import Plan, PlannedRun
from calibadv.tracking.registered import is_registered
from calibadv.training.inputs import resolve_inputs

_FILES = ("data.train", "data.test", "data.corpus", "model.path", "search.faiss_index")


def plan_page(plan: Plan) -> RenderableType:
    """A row a cell, then every file or model that a run would need and that is not on this machine."""
    table = Table(title=f"Study {plan.study.name}: {len(plan.runs)} runs", title_justify="left")
    for column in ("cell", "group", "method", "parameters", "seeds", "steps", "rollouts a step", "updates a step"):
        table.add_column(column, overflow="fold")
    for cell in plan.study.cell:
        config = plan.of_cell(cell)[0].config
        table.add_row(
            cell.name,
            ", ".join(cell.group),
            cell.method,
            ", ".join(f"{name} = {value}" for name, value in cell.params.items()),
            ", ".join(map(str, plan.study.seeds_of(cell))),
            f"{config.run.steps:,}",
            f"{config.rollouts_per_step:,}",
            f"{config.updates_per_step:,}",
        )
    missing = not_here([run.config for run in plan.runs])
    return Group(table, *(Text(line) for line in missing or ["Every file and model of the study is here."]))


def not_here(configs: Sequence[Config]) -> list[str]:
    """Files and models that the configurations name and that are not on this machine, each once, in words."""
    words: dict[str, None] = {}
    for config in configs:
        for key in _FILES:
            section, _, name = key.partition(".")
            value = str(getattr(getattr(config, section), name))
            if value in ("", POCKET) or Path(value).exists() or (config.search.elsewhere and section == "search"):
                continue
            fetched = ""
            if key == "model.path":
                if in_cache(value):
                    continue
                if is_registered(value):
                    fetched = " (MLflow's registry: fetched when the study runs)"
                elif to_fetch(value):
                    fetched = " (a hub's name: fetched when the study runs)"
            words[f"not here: {key} = {value!r}{fetched}"] = None
    return list(words)


def check_files(runs: Sequence[PlannedRun], day: str) -> list[PlannedRun]:
    """The runs, files of each read once, and one day for all whose chat template writes the date.

    `day`: of runs that have finished; "" = today. ValueError or FileNotFoundError for what cannot be used.
    """
    seen: list[tuple[object, str]] = []
    checked = []
    for run in runs:
        config = run.config
        method = config.run_method()
        # A method's prefill counts against the prompt's budget.
        key = (config.run.cache, config.data, config.model, config.rollout, method.prefill, method.gold)
        told = next((told for known, told in seen if known == key), None)
        if told is None:
            inputs = resolve_inputs(config)
            told = with_date(config, inputs.method, inputs.model, day).rollout.date
            seen.append((key, told))
        checked.append(run.told(told))
    return checked
