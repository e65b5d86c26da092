"""What a section of the configuration is made of: its base class, and numbers with the bounds of a slip.

A room may define its own section beside what it configures; `calibadv.config` puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

# Bounds above which a number is a slip (a unit, an exponent, a digit too many), however large the machine.
Steps = Annotated[int, Field(ge=1, le=10**7)]
Rollouts = Annotated[int, Field(ge=1, le=10**6)]  # or questions, passages, sequences
Tokens = Annotated[int, Field(ge=1, le=10**8)]
Processes = Annotated[int, Field(ge=1, le=10**4)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Coefficient = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0, le=10**6)]


class Decides(Enum):
    """What a setting decides. A section says it for all of its settings, a setting otherwise for itself."""

    RESULT = "what is learned: the same for a run's whole life"
    DIALOGUE = "what a policy reads and keeps to: an evaluation asks it in the same way"
    TASK = "what is asked and how it is scored: the same for methods that are compared"
    CONTENT = "the task too, as a name: what is there is compared, wherever it lies"
    MEANS = "how fast a run computes and how closely it is watched: other when it goes on, if need be"
    PLACE = "where a run is written and scheduled: no part of what it is"


T = TypeVar("T")


def _at_home(value: Any) -> Any:
    at_home = isinstance(value, str | Path) and (str(value) == "~" or str(value).startswith("~/"))
    return os.path.expanduser(value) if at_home else value


Local = Annotated[T, BeforeValidator(_at_home)]
"""A path, or a text that may be one: ~/ at its beginning is the home folder, in a TOML file too."""
Result = Annotated[T, Decides.RESULT]
Dialogue = Annotated[T, Decides.DIALOGUE]
Task = Annotated[T, Decides.TASK]
Content = Annotated[T, Decides.CONTENT]
Means = Annotated[T, Decides.MEANS]


class Section(BaseModel):
    """A frozen part of the configuration that knows no extra keys, and takes neither `inf` nor `true` for a number.

    The word "none" (or "null") unsets what may be unset: TOML has no null. A field's docstring is what `--help` says.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, use_attribute_docstrings=True
    )

    decides: ClassVar[Decides]

    @classmethod
    def decision_of(cls, name: str) -> Decides:
        """What a setting decides, by its own mark or its section's."""
        own = [mark for mark in cls.model_fields[name].metadata if isinstance(mark, Decides)]
        return own[-1] if own else cls.decides

    @classmethod
    def deciding(cls, what: Decides) -> tuple[str, ...]:
        """Names of the settings that decide this, in their order."""
        return tuple(name for name in cls.model_fields if cls.decision_of(name) is what)

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = kinds_of(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and {int, float} & kinds:
            raise PydanticCustomError("number_wanted", "Input should be a number")
        unset = isinstance(value, str) and value.lower() in ("none", "null") and type(None) in kinds
        return None if unset else value


def somewhere(value: T, expected: str) -> T:
    """The value. Refused where it is empty, which a path would take for the current folder."""
    if not str(value).strip():
        raise PydanticCustomError("somewhere_wanted", "expected {expected}", {"expected": expected})
    return value


def kinds_of(annotation: Any) -> set[Any]:
    """The types and literal values that an annotation is made of, itself among them."""
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return {annotation, *(kind for part in parts for kind in kinds_of(part))}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping under dotted keys; an empty mapping leaves nothing."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values
