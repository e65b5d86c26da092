"""Code of the user's own that a setting names: `package.module:name` or `path/file.py:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from calibadv.nearest import did_you_mean

_loaded: dict[str, ModuleType] = {}  # by what stands before the colon; a file's by its whole path


def names_code(text: str) -> bool:
    """Whether a setting's value names code, and none of the values that we know."""
    return ":" in text


def load(reference: str, key: str) -> Any:
    """What `reference` names; the same object each time in a process. ValueError, naming the setting `key`, if nothing.

    What the user's module raises while it is imported comes with its own words.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError(
            f"{key} = {reference!r}: expected package.module:name or path/file.py:name, e.g. reward.py:reward"
        )
    module = _module(place, reference, key)
    if not hasattr(module, name):
        raise ValueError(f"{key} = {reference!r}: there is no {name!r} in {place}{did_you_mean(name, dir(module))}")
    return getattr(module, name)


def loaded_modules() -> tuple[ModuleType, ...]:
    """The modules that were loaded here: other processes know none of them."""
    return tuple(_loaded.values())


def _module(place: str, reference: str, key: str) -> ModuleType:
    file = Path(place).absolute() if place.endswith(".py") else None
    known = str(file) if file else place
    if known in _loaded:
        return _loaded[known]
    if file and not file.is_file():
        raise ValueError(f"{key} = {reference!r}: there is no file {file}")
    try:
        module = importlib.import_module(place) if file is None else _from_file(file)
    except Exception as error:
        raise ValueError(f"{key} = {reference!r} cannot be imported: {type(error).__name__}: {error}") from error
    _loaded[known] = module
    return module


def _from_file(file: Path) -> ModuleType:
    name = f"_calibadv_user_{file.stem}_{len(_loaded)}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
