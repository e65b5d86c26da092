"""What `import calibadv` offers: training and evaluating as functions, with functions of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from calibadv.config import Config, load_config
from calibadv.evaluation.asking import cluster_rollouts
from calibadv.evaluation.plan import Command, Plan, make_plan
from calibadv.evaluation.results import read_results
from calibadv.evaluation.tracked import open_run
from calibadv.methods import Method
from calibadv.rewards.outcome import OutcomeFn
from calibadv.search.tool import ToolFn
from calibadv.tracking.finished_run import Run
from calibadv.user_code import hand_in
from calibadv.views.open import open_view
from workflows import evaluate as evaluation
from workflows.one_run import train_run
from workflows.shipped import RECIPES, recipe_file

__all__ = ["Config", "Run", "evaluate", "load_config", "train"]


def train(
    recipe: str | Path | Config = "pocket",
    *,
    reward: str | OutcomeFn | Mapping[str, Any] | None = None,
    search: str | ToolFn | Mapping[str, Any] | None = None,
    method: str | Callable[..., Method] | Mapping[str, Any] | None = None,
    tools: Sequence[str | Callable[..., Any] | Mapping[str, Any]] = (),
    **sections: Mapping[str, Any],
) -> Run:
    """Trains a search agent and returns its run, which is in `run.folder` and in MLflow as any other.

    `recipe`: a name of ours, a TOML file, or a configuration; `sections` go over it: `run={"steps": 2}`. `reward`,
    `search` and `method` are names, references (`file.py:name`) or functions, as docs/extend.md has them; or the
    section of that name, in which a function may stand too: `search={"tool": find, "top_k": 5}`. `tools` are functions,
    references, or entries of `rollout.tools`, beside the search; they need
    `rollout={"dialogue": "hermes"}` or "template". Raises ValueError for input that is refused, before anything starts,
    and whatever ends the run early. A local Ray is started and ended; inside one that is up that one is used.
    """
    given = {"reward": reward, "search": search, "method": method}
    settings = settings_of({**sections, **{name: value for name, value in given.items() if value}})
    if tools:
        settings["rollout.tools"] = [*settings.get("rollout.tools", ()), *map(tool_of, tools)]
    config = config_of(recipe, settings)
    with open_view(config.run.steps) as view:
        train_run(config, view)
    return Run(config.run.folder / config.run_name)


def evaluate(
    models: str | Path | Run | Sequence[str | Path | Run],
    sets: Mapping[str, str | Path],
    corpus: str | Path,
    *,
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    questions: int | None = None,
    **sections: Mapping[str, Any],
) -> pd.DataFrame:
    """Answers every question of every set greedily and returns the figures, a row a model and set.

    `models`: runs, folders, hub names or "pocket". What was answered before into the same `out` is kept. Raises
    ValueError for what cannot be evaluated, and RuntimeError where the search failed for some questions.
    """
    plan = plan_of(models, sets, corpus, recipe, out, questions, sections)
    if evaluation.evaluate(plan, evaluation.searching, cluster_rollouts, open_run):
        raise RuntimeError(f"the search failed for some questions: call again to ask them anew ({plan.out})")
    rows = [
        {"model": model.name, "set": name, **result.figures.to_dict()}
        for model in read_results(plan.out, [model.name for model in plan.models])
        for name, result in model.sets.items()
    ]
    return pd.json_normalize(rows)


def plan_of(
    models: str | Path | Run | Sequence[str | Path | Run],
    sets: Mapping[str, str | Path],
    corpus: str | Path,
    recipe: str | Path | None,
    out: str | Path | None,
    questions: int | None,
    sections: Mapping[str, Mapping[str, Any]],
) -> Plan:
    """What `evaluate` will do."""
    several = [models] if isinstance(models, str | Path | Run) else models
    return make_plan(
        Command(
            models=tuple(str(model.folder if isinstance(model, Run) else model) for model in several),
            sets=tuple((name, str(file)) for name, file in sets.items()),
            corpus=str(corpus),
            recipe=None if recipe is None else recipe_file(str(recipe)),
            out=None if out is None else Path(out),
            questions=questions,
            overrides=sections,
            pocket=RECIPES / "pocket.toml",
        )
    )


_NAMED_BY = {"reward": "outcome", "search": "tool", "method": "name"}  # the key that takes a function


def settings_of(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The sections with references in place of functions."""
    whole = {
        name: values if isinstance(values, Mapping) else {_NAMED_BY[name]: values} for name, values in sections.items()
    }
    return {
        f"{name}.{key}": hand_in(value) if callable(value) else value
        for name, values in whole.items()
        for key, value in values.items()
    }


def tool_of(given: str | Callable[..., Any] | Mapping[str, Any]) -> dict[str, Any]:
    """The entry of `rollout.tools`."""
    entry = dict(given) if isinstance(given, Mapping) else {"function": given}
    return {key: hand_in(value) if callable(value) else value for key, value in entry.items()}


def config_of(recipe: str | Path | Config, settings: Mapping[str, Any]) -> Config:
    """The recipe with the settings, by their dotted names, over it."""
    if not isinstance(recipe, Config):
        return load_config(recipe_file(str(recipe)), settings)
    sections = recipe.model_dump()
    whole = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return load_config(None, whole | dict(settings))
