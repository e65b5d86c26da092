"""A configuration from a recipe and what overrides it. Unknown keys are refused with the nearest right one."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from calibadv.config.names import suggestion
from calibadv.config.tree import Config
from calibadv.data.errors import shown


class ConfigError(ValueError):
    """A configuration that cannot be used, said in one line a problem."""


def load_config(recipe: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The recipe's TOML with `--section.key value` (or `--section.key=value`) overrides applied, validated.

    Raises `ConfigError` naming key, value, expectation and the nearest right key.
    """
    tree = {} if recipe is None else read_toml(recipe, "recipe", "workflows/recipes/pocket.toml")
    for dotted, text in _pairs(overrides):
        _assign(tree, dotted, text)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from None


def read_toml(path: Path, what: str, example: str) -> dict[str, Any]:
    """The tables of a TOML file; `ConfigError` if it cannot be read, in words for `what` it is, e.g. a recipe."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no {what} at {path}: give a TOML file, e.g. {example}") from None
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not TOML that can be read: it is nested too deeply") from None
    except ValueError as error:  # not only TOMLDecodeError: also bytes that are no text, and numbers without end
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    pairs, waiting = [], list(arguments)
    while waiting:
        flag = waiting.pop(0)
        if not flag.startswith("--"):
            near = suggestion(flag.partition("=")[0], every_key()) if "=" in flag else ""
            raise ConfigError(f"unexpected argument {flag!r}{near}: overrides are --section.key value")
        key, equals, value = flag[2:].partition("=")
        if not equals:
            if not waiting or (waiting[0].startswith("--") and "." in waiting[0]):
                raise ConfigError(f"--{key} has no value: overrides are --section.key value")
            value = waiting.pop(0)
        pairs.append((key.replace("-", "_"), value))
    return pairs


def _assign(tree: dict[str, Any], dotted: str, text: str) -> None:
    *parents, leaf = dotted.split(".")
    if not parents:
        raise ConfigError(f"--{dotted} names no section{suggestion(dotted, every_key())}: use --section.key value")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--{dotted}: {parent} is a value, not a section")
    try:
        tree[leaf] = _value(text, _type_of(dotted))
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"--{dotted} cannot be read: {error}") from None


def _value(text: str, kind: Any) -> Any:
    if text.lower() in ("none", "null") and type(None) in get_args(kind):  # elsewhere "none" is a word like any other
        return None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string
    return text if kind in (str, Path) and not isinstance(value, str) else value  # a run may be called 42


def _type_of(dotted: str) -> Any:
    """The annotation of a key of a section; None for one that does not exist, and for a method's parameters."""
    section, _, key = dotted.partition(".")
    known = Config.model_fields.get(section)
    field = getattr(known.annotation, "model_fields", {}).get(key) if known is not None else None
    return field.annotation if field is not None else None


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = every_key()
        misspelt = "." in where or difflib.get_close_matches(where, list(Config.model_fields), cutoff=0.8)
        wrong = [where] if misspelt else _leaves(where, problem["input"])
        return "\n".join(f"unknown key {key!r}{suggestion(key, known)}" for key in wrong)
    message = problem["msg"].removeprefix("Value error, ")
    # Our own validators name the key themselves.
    return message if problem["type"] == "value_error" else f"{where} = {shown(problem['input'])}: {message}"


def _leaves(where: str, value: Any) -> list[str]:
    """The dotted names below an unknown section, such as another trainer's; itself where it holds none."""
    if not isinstance(value, dict) or not value:
        return [where]
    return [leaf for key, below in value.items() for leaf in _leaves(f"{where}.{key}", below)]


def every_key() -> list[str]:
    keys = []
    for section, field in Config.model_fields.items():
        assert isinstance(field.annotation, type)
        keys += [section, *(f"{section}.{key}" for key in field.annotation.model_fields)]
    return keys
