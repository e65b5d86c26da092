"""Where a model lies that a configuration names."""

from __future__ import annotations

from pathlib import Path

from calibadv.config import POCKET
from calibadv.model_source import find_model
from calibadv.pocket import policy_path


def model_folder(name: str) -> Path:
    """The model's folder: the pocket policy's, or a whole one as `find_model` finds or fetches it."""
    if name == POCKET:
        return policy_path()
    found = find_model(name)
    if not found.whole:
        raise ValueError(
            f"model.path = {name!r}: {found.path} does not hold all of its weights: fetch or save the model whole"
        )
    return found.path
