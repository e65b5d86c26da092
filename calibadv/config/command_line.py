"""A command line's own flags, and its configuration keys: `--section.key value` or `--section.key=value`.

pydantic-settings reads such flags too, but answers a misspelt one with the usage of all keys and not with the nearest,
and knows no `--method.params.lam`.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from textwrap import fill, shorten
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tomli_w

from calibadv.config.load import ConfigError, every_key
from calibadv.config.names import suggestion
from calibadv.config.tree import Config
from calibadv.section import Section, flat

KEYS_TOO = "--section.key VALUE: any configuration key, which `workflows/train.py --help` lists"
_NAMES = {
    bool: "true|false",
    int: "INTEGER",
    float: "NUMBER",
    str: "TEXT",
    Path: "PATH",
    tuple: "LIST",
    dict: "TABLE",
    type(None): "none",
}


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None, *, intermixed: bool = False
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The parser's own flags, and the values of configuration keys by their dotted names, the last one given of each.

    `intermixed`: positional arguments may stand between flags. Raises `ConfigError` for what is neither.
    """
    own, values = split(sys.argv[1:] if arguments is None else arguments)
    known, unknown = (parser.parse_known_intermixed_args if intermixed else parser.parse_known_args)(own)
    for argument in unknown:
        name, equals, _ = argument.partition("=")
        if argument.startswith("--"):
            near = suggestion(name.removeprefix("--"), every_key())
            raise ConfigError(f"{name} names no section{near}: use --section.key value")
        near = suggestion(name, every_key()) if equals else ""
        raise ConfigError(f"unexpected argument {argument!r}{near}: overrides are --section.key value")
    return known, values


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments that name no configuration key, and the values of those that do. Raises `ConfigError`."""
    own, values, waiting = [], {}, list(arguments)
    while waiting:
        argument = waiting.pop(0)
        flag, equals, text = argument.partition("=")
        if not (flag.startswith("--") and "." in flag):
            own.append(argument)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise ConfigError(f"{flag} has no value: overrides are --section.key value")
            text = waiting.pop(0)
        key = flag.removeprefix("--").replace("-", "_")
        try:
            values[key] = _value(text, _type_of(key))
        except (RecursionError, ValueError) as error:
            raise ConfigError(f"--{key} cannot be read: {error}") from None
    return own, values


def flags(values: Mapping[str, Any]) -> list[str]:
    """The arguments from which `split` reads these values: for a command that is shown or started."""
    arguments: list[str] = []
    for key, value in flat(values).items():
        arguments += [f"--{key}", _literal(value, _type_of(key))]
    return arguments


def keys_help(width: int) -> str:
    """Every configuration key with its type, its default and its meaning, a section after the other."""
    lines = fill("configuration keys, as --section.key VALUE or in a recipe's TOML, [section] key = VALUE:", width)
    for section, part in Config.model_fields.items():
        assert isinstance(part.annotation, type)
        assert issubclass(part.annotation, Section)
        about = " ".join((part.annotation.__doc__ or "").split())
        lines += f"\n\n{fill(f'{section}: {about}', width, subsequent_indent='  ')}\n"
        for name, field in part.annotation.model_fields.items():
            default = shorten(_shown(field.get_default(call_default_factory=True)), 60, placeholder=" …")
            meaning = fill(field.description or "", width, initial_indent=" " * 6, subsequent_indent=" " * 6)
            lines += f"\n  --{section}.{name} {_words(field.annotation)} (default: {default})\n{meaning}"
    return lines


def _shown(value: Any) -> str:
    """A value as help has it, where nothing can be seen of an empty one."""
    return {"": '""', "{}": "{}"}.get(str(value)) or _literal(value, str)


def _words(kind: Any) -> str:
    """What a value of an annotation looks like."""
    if get_origin(kind) is Annotated:
        return _words(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "|".join(map(_shown, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_words(part) for part in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member) for member in kind)
    return _NAMES[get_origin(kind) or kind]


def _literal(value: Any, kind: Any) -> str:
    if value is None:
        return "none"
    text = str(value) if isinstance(value, str | Path) else None
    if text is not None and not text.startswith("--") and _value(text, kind) == text:
        return text
    return tomli_w.dumps({"value": value if text is None else text}).removeprefix("value = ").rstrip()


def _value(text: str, kind: Any) -> Any:
    """The TOML literal, or the text itself where it is none or text is wanted: a run may be called 42."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string
    return text if kind in (str, Path) and not isinstance(value, str) else value


def _type_of(dotted: str) -> Any:
    """The annotation of a key of a section; None for one that does not exist, and for a method's parameters."""
    section, _, key = dotted.partition(".")
    known = Config.model_fields.get(section)
    field = getattr(known.annotation, "model_fields", {}).get(key) if known is not None else None
    return field.annotation if field is not None else None
