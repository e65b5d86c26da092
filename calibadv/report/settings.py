"""A run's configuration beside the recipe that it is nearest to: what was set differently, and what each key means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calibadv.config import Config
from calibadv.config.tree import decides
from calibadv.section import Decides


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the run, and its value in the recipe."""

    key: str
    value: str
    base: str
    decides: str  # what the key decides: the task, the result, …


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs from `base`, and everything."""

    base: str
    differences: tuple[Setting, ...]
    all: Mapping[str, str]


def settings_of(config: Config, recipes: Mapping[str, Config]) -> Settings:
    """The differences to the recipe that has the fewest, where the names of places do not count; to the defaults, where
    there are no recipes."""
    bases = dict(recipes) or {"the defaults": Config()}
    values = _texts(config)
    base = min(bases, key=lambda name: sum(_counts(key) for key in _different(values, _texts(bases[name]))))
    of_base = _texts(bases[base])
    differences = [
        Setting(key, values.get(key, "–"), of_base.get(key, "–"), str(decides(key).value))
        for key in _different(values, of_base)
    ]
    order = [str(what.value) for what in Decides]  # what is learned first, places last
    return Settings(base, tuple(sorted(differences, key=lambda one: order.index(one.decides))), values)


def _texts(config: Config) -> dict[str, str]:
    return {key: _text(value) for key, value in config.flat().items()}


def _different(values: Mapping[str, str], base: Mapping[str, str]) -> list[str]:
    return [key for key in {**values, **base} if values.get(key) != base.get(key)]


def _counts(key: str) -> bool:
    return decides(key) is not Decides.PLACE


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
