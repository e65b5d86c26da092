"""What a section of the configuration is made of: its base class, and numbers with the bounds of a slip.

A room may define its own section beside what it configures; `calibadv.config` puts them together.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
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


class Section(BaseModel):
    """A frozen part of the configuration that knows no extra keys, and takes neither `inf` nor `true` for a number.

    The word "none" (or "null") unsets what may be unset: TOML has no null. A field's docstring is what `--help` says.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = kinds_of(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and {int, float} & kinds:
            raise PydanticCustomError("number_wanted", "Input should be a number")
        unset = isinstance(value, str) and value.lower() in ("none", "null") and type(None) in kinds
        return None if unset else value


def kinds_of(annotation: Any) -> set[Any]:
    """The types and literal values that an annotation is made of, itself among them."""
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return {annotation, *(kind for part in parts for kind in kinds_of(part))}
