"""Where a model lies that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibadv.config import POCKET, Config
from calibadv.model_source import ALL_FILES, ModelFolder, find_model
from calibadv.pocket import policy_path
from calibadv.tracking.registered import is_registered, registered_model


def model_here(name: str, files: Sequence[str] = ALL_FILES, config: Config | None = None) -> ModelFolder:
    """The pocket policy, a model of MLflow's registry, or what `find_model` finds or fetches, as far as it is here.

    `config`: its runs and their MLflow are where a registered model is looked for, as `registered_model` says.
    """
    if name == POCKET:
        return ModelFolder(policy_path(), whole=True)
    if is_registered(name):
        uri, runs = ("", Path("runs")) if config is None else (config.tracking.mlflow_uri, config.run.folder)
        name = str(registered_model(name, uri=uri, runs=runs))
    return find_model(name, files)


def model_folder(name: str, config: Config | None = None) -> Path:
    """The folder of a model that is whole. ValueError for one that is not, and as `find_model`. `config`: as above."""
    found = model_here(name, ALL_FILES, config)
    if not found.whole:
        raise ValueError(
            f"model.path = {name!r}: {found.path} does not hold all of its weights: fetch or save the model whole"
        )
    return found.path
