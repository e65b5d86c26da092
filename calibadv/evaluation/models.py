"""Which models are evaluated, and how each of them is asked: in the way of the run that made it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibadv.config import POCKET, Config, load_config
from calibadv.config.rollout import RolloutConfig
from calibadv.section import Decides
from calibadv.tracking.registered import is_registered
from calibadv.tracking.run_files import CONFIG, METRICS, MODEL

DIALOGUE = RolloutConfig.deciding(Decides.DIALOGUE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CONFIGURATION = "calibadv.toml"  # in a model's folder: the configuration of the run that made it, wherever it goes
_STORE = ("tracking.mlflow_uri", "run.folder")  # where a registered model is looked for
_RUN_MARKS = (CONFIG, METRICS)  # of every run's folder


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model's folder, the name of its row and of its folder of results, and the configuration it is asked under."""

    name: str
    folder: Path
    config: Config


def find_models(
    given: Sequence[str], recipe: Path | None, overrides: Mapping[str, Any], pocket: Path | None = None
) -> tuple[EvaluatedModel, ...]:
    """The models of the command line, each `MODEL` or `NAME=MODEL`; a hub model is downloaded (and cached) now.

    A run's own config.toml says how its model is asked and scored; with a recipe, method, dialogue and scoring are
    still the run's, all else is the recipe's; overrides win over both. `pocket` is the recipe of the model "pocket"
    where none is given. ValueError for what is no model, a name that is used twice, and a model of no run without a
    recipe.
    """
    models = [_find(text, recipe, overrides, pocket) for text in given]
    for index, model in enumerate(models):
        first = next(other for other in models if other.name == model.name)
        if first is not models[index]:
            raise ValueError(
                f"{first.folder} and {model.folder} are both called {model.name!r}: name one of them, "
                f"e.g. {model.name}-2={model.folder}"
            )
    return tuple(models)


def check_name(name: str, what: str) -> str:
    """`name`, if it can be a folder and part of a metric's name. ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: expected letters, digits, '.', '_' and '-', a letter or a digit first")
    return name


def _find(text: str, recipe: Path | None, overrides: Mapping[str, Any], pocket: Path | None) -> EvaluatedModel:
    head, equals, tail = text.partition("=")
    named = bool(equals) and _NAME.fullmatch(head) is not None and not Path(text).exists()
    given = tail if named else text
    run = _run_of(Path(given))
    folder = _folder(given, run, recipe, overrides)
    trained = run / CONFIG if run is not None else folder / CONFIGURATION
    own = trained if trained.is_file() else None
    config = _config(own, pocket if own is None and given == POCKET and recipe is None else recipe, overrides, given)
    name = head if named else _name(given, folder, run)
    return EvaluatedModel(check_name(name, f"the name of model {given!r}"), folder, config)


def _run_of(path: Path) -> Path | None:
    """The folder of the run that a path is, or lies in (its model, a checkpoint); None for a model of no run."""
    path = path.absolute()
    if not path.exists():  # a hub name
        return None
    for folder in (path, *path.parents[:2]):
        if all((folder / mark).is_file() for mark in _RUN_MARKS):
            return folder
    return None


def _folder(given: str, run: Path | None, recipe: Path | None, overrides: Mapping[str, Any]) -> Path:
    from calibadv.cluster.model_folder import model_folder

    if is_registered(given):  # its own configuration comes with it
        store = overrides if recipe else {key: overrides[key] for key in _STORE if key in overrides}
        return model_folder(given, load_config(recipe, store))
    if run is None or Path(given).absolute() != run:
        return model_folder(given)
    if not (run / MODEL).is_dir():
        raise ValueError(
            f"{run} is a run without a model/: it has not finished a step; give another run or a model folder"
        )
    return model_folder(str(run / MODEL))


def _name(given: str, folder: Path, run: Path | None) -> str:
    if given == POCKET:
        return POCKET
    if is_registered(given):
        return re.sub(r"[/@]", "-", given.removeprefix("models:/"))
    if run is None:
        hub = not Path(given).is_dir()  # a hub model's folder is named after a commit
        return given.rpartition("/")[2] if hub else folder.parent.name if folder.name == MODEL else folder.name
    return run.name if folder == run / MODEL else f"{run.name}-{folder.name}"


def _config(own: Path | None, recipe: Path | None, overrides: Mapping[str, Any], given: str) -> Config:
    """The configuration; flags are applied to run and recipe alike, so that they win whichever is taken."""
    if recipe is None and own is None:
        raise ValueError(
            f"{given!r} is no model of one of our runs, so that nothing says how to ask it: give --config RECIPE, "
            "e.g. workflows/recipes/qwen2.5-7b.toml"
        )
    if own is None:
        return load_config(recipe, overrides)
    trained = load_config(own, overrides)
    if recipe is None:
        return trained
    config = load_config(recipe, overrides)
    rollout = config.rollout.model_copy(update={name: getattr(trained.rollout, name) for name in DIALOGUE})
    return config.model_copy(update={"method": trained.method, "reward": trained.reward, "rollout": rollout})
