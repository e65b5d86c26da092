"""What pydantic refuses, in words."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from calibadv.refusals import in_lines, problems, short_repr


class Cake(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["plum", "cherry"] = "plum"
    eggs: int = 3
    sizes: dict[str, int] = {}
    name: str = ""

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError(f"name = {name!r} is too long: give a short one")
        return name


def refused(**given: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Cake.model_validate(given)
    return caught.value


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"kind": "chery"}, "kind = 'chery': Input should be 'plum' or 'cherry' (did you mean 'cherry'?)"),
        ({"kind": "xyz"}, "kind = 'xyz': Input should be 'plum' or 'cherry'"),
        ({"sizes": {"a": "b"}}, "sizes.a = 'b': Input should be a valid integer, unable to parse string as an integer"),
        ({"name": "Battenberg"}, "name = 'Battenberg' is too long: give a short one"),
        ({"egs": 2}, "no egs"),
    ],
)
def test_a_problem_is_a_line_with_the_nearest_word(given: dict[str, object], line: str) -> None:
    assert in_lines(refused(**given), lambda problem: f"no {problem.where}") == [line]


def test_every_problem_is_said() -> None:
    found = problems(refused(eggs="two", egs=2).errors())
    assert [(problem.where, problem.given, problem.unknown) for problem in found] == [
        ("eggs", "two", False),
        ("egs", 2, True),
    ]


def test_a_long_value_is_cut() -> None:
    assert short_repr("a" * 100) == "'" + "a" * 76 + "..."
    assert short_repr("a" * 78) == repr("a" * 78)
