"""What a section of the configuration is made of: its base class, and numbers with the bounds of a slip.

A room may define its own section beside what it configures; `calibadv.config` puts them together.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

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
    """A frozen part of the configuration that knows no extra keys, and takes neither `inf` nor `true` for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise PydanticCustomError("number_wanted", "Input should be a number")
        return value
