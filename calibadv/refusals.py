"""What is refused, in words: a value as a message quotes it, and pydantic's problems in one line each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calibadv.nearest import did_you_mean

if TYPE_CHECKING:  # a tenth of a second, for those who quote a value alone
    from pydantic import ValidationError

_LONGEST = 80  # characters of a value


def short_repr(value: object) -> str:
    """`value` as an error message quotes it: never more than 80 characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that pydantic refuses; as text its key, the value, the expectation and the nearest right word."""

    where: str  # the key, dotted
    given: object
    said: str
    unknown: bool  # there is no such key
    ours: bool  # of a validator of our own, which names the key itself

    def __str__(self) -> str:
        return self.said if self.ours else f"{self.where} = {short_repr(self.given)}: {self.said}"


def problems(errors: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Of `ValidationError.errors()`."""
    return [
        Problem(
            where=".".join(map(str, error["loc"])),
            given=error["input"],
            said=error["msg"].removeprefix("Value error, ") + _near(error),
            unknown=error["type"] == "extra_forbidden",
            ours=error["type"] == "value_error",
        )
        for error in errors
    ]


def in_lines(error: ValidationError, unknown: Callable[[Problem], str]) -> list[str]:
    """A line a problem; `unknown` says it of a key that there is none of."""
    return [unknown(problem) if problem.unknown else str(problem) for problem in problems(error.errors())]


def _near(error: Mapping[str, Any]) -> str:
    if error["type"] not in ("literal_error", "enum"):
        return ""
    return did_you_mean(str(error["input"]), re.findall(r"'([^']+)'", error["ctx"]["expected"]), 0.4)
