"""Search settings from a config file's mapping or from a command's flags, refused one line a problem."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from calibadv.nearest import did_you_mean
from calibadv.refusals import Problem, in_lines
from calibadv.search.settings import SearchConfig

Config = TypeVar("Config", bound=SearchConfig)


def read_search(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """The settings of these values. Raises `ValueError` naming key, value and the nearest right key or word."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(in_lines(error, partial(_unknown, kind)))) from None


def add_search_flags(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """Gives the parser a flag for every field of `SearchConfig`; `defaults` are the command's own."""
    group = parser.add_argument_group("search", "what [search] of a recipe holds, under the same names")
    for name, field in SearchConfig.model_fields.items():
        default = defaults.get(name, field.default)
        said = "none" if default is None else default if default != "" else "empty"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"search_{name}",
            metavar="|".join(_words(field)) or "VALUE",
            default=argparse.SUPPRESS,
            help=f"{field.description} (default: {said})".replace("%", "%%").replace("\n", " "),
        )
    parser.set_defaults(**{f"search_{name}": value for name, value in defaults.items()})


def parse_flags(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The parser's arguments; one that it does not know ends the process with the nearest of `SearchConfig`'s flags."""
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [f"--{name.replace('_', '-')}" for name in SearchConfig.model_fields]
        parser.error(
            f"unknown argument {unknown[0]}{did_you_mean(unknown[0].partition('=')[0], flags, 0.4)}; see --help"
        )
    return args


def flagged_search(args: argparse.Namespace) -> SearchConfig:
    """The settings of the flags that were given. Raises `ValueError` as `read_search` does."""
    given = {name: getattr(args, f"search_{name}") for name in SearchConfig.model_fields if f"search_{name}" in args}
    optional = {name for name in given if type(None) in get_args(SearchConfig.model_fields[name].annotation)}
    return read_search(
        SearchConfig, {name: None if name in optional and value == "none" else value for name, value in given.items()}
    )


def _unknown(kind: type[SearchConfig], problem: Problem) -> str:
    return f"unknown key {problem.where!r}{did_you_mean(problem.where, kind.model_fields, 0.4)}"


def _words(field: FieldInfo) -> list[str]:
    """The words that a field can be; none where it can be anything."""
    if isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        return [str(word.value) for word in field.annotation]
    return [word for word in get_args(field.annotation) if isinstance(word, str)]
