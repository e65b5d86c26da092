"""A configuration from TOML and what overrides it, and back. Unknown keys are refused with the nearest right one."""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w
from pydantic import ValidationError

from calibadv.config.names import suggestion
from calibadv.config.tree import Config
from calibadv.refusals import Problem, in_lines
from calibadv.section import flat

NOTHING: Mapping[str, Any] = MappingProxyType({})


class ConfigError(ValueError):
    """A configuration that cannot be used, said in one line a problem."""


def load_config(recipe: Path | None = None, overrides: Mapping[str, Any] = NOTHING) -> Config:
    """The recipe's TOML, or the defaults, with `overrides` in it, validated.

    An override is a dotted key with its value, {"run.seed": 1}, or a section with some of its keys,
    {"run": {"seed": 1}}; a later one wins over an earlier. Raises `ConfigError` naming key, value, expectation and the
    nearest right key.
    """
    tree = {} if recipe is None else read_toml(recipe, "recipe", "workflows/recipes/pocket.toml")
    for dotted, value in _dotted(overrides):
        _put(tree, dotted, copy.deepcopy(value))
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(in_lines(error, _unknown))) from None


def to_toml(config: Config) -> str:
    """The whole tree, defaults included, as `load_config` reads it back; unset values are left out."""
    return tomli_w.dumps(_plain(config.model_dump()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    return str(value) if isinstance(value, Path) else value


def read_toml(path: Path, what: str, example: str) -> dict[str, Any]:
    """The tables of a TOML file; `ConfigError` if it cannot be read, in words for `what` it is, e.g. a recipe."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"no {what} at {path}: give a TOML file, e.g. {example}") from None
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not TOML that can be read: it is nested too deeply") from None
    except ValueError as error:  # not only TOMLDecodeError: also bytes that are no text, and numbers without end
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _dotted(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in overrides.items():
        if "." not in key and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{dotted}: {parent} is a value, not a section")
    tree[leaf] = value


def _unknown(problem: Problem) -> str:
    known = every_key()
    misspelt = "." in problem.where or difflib.get_close_matches(problem.where, list(Config.model_fields), cutoff=0.8)
    wrong = [] if misspelt else list(flat({problem.where: problem.given}))  # such as another trainer's section
    return "\n".join(f"unknown key {key!r}{suggestion(key, known)}" for key in wrong or [problem.where])


def every_key() -> list[str]:
    keys = []
    for section, field in Config.model_fields.items():
        assert isinstance(field.annotation, type)
        keys += [section, *(f"{section}.{key}" for key in field.annotation.model_fields)]
    return keys
