"""Where a model lies that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibadv.config import POCKET
from calibadv.model_source import ALL_FILES, ModelFolder, find_model
from calibadv.pocket import policy_path
from calibadv.tracking.registered import is_registered, registered_model


def model_here(name: str, files: Sequence[str] = ALL_FILES) -> ModelFolder:
    """The pocket policy, a model of MLflow's registry, or what `find_model` finds or fetches, as far as it is here."""
    if name == POCKET:
        return ModelFolder(policy_path(), whole=True)
    return find_model(str(registered_model(name)) if is_registered(name) else name, files)


def model_folder(name: str) -> Path:
    """The folder of a model that is whole. ValueError for one that is not, and as `find_model`."""
    found = model_here(name)
    if not found.whole:
        raise ValueError(
            f"model.path = {name!r}: {found.path} does not hold all of its weights: fetch or save the model whole"
        )
    return found.path
