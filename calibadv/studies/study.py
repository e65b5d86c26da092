"""The study's TOML file: which cells there are, over which seeds, and which table and figures each belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from calibadv.config import ConfigError, read_toml
from calibadv.nearest import did_you_mean
from calibadv.refusals import Problem, in_lines
from calibadv.section import Local, Section

GroupName = Literal["table", "ladder", "lambda", "stress"]
"""table: methods side by side; ladder: an ablation; lambda: a sweep of `lam`; stress: a recipe made to collapse."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]  # a folder's and a run's name
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class Cell(Section):
    """One way to train: a method with its parameters, and what it changes in the study's recipe."""

    name: Name
    method: str
    params: dict[str, Any] = Field(default_factory=dict)
    seeds: Seeds | None = None  # None = the study's
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    group: tuple[GroupName, ...] = ("table",)
    allow_different: bool = False  # may train on other data, or with another number of steps or updates

    @field_validator("group", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Study(Section):
    """Every cell over every seed. `recipe` is relative to the study's file until `load_study` has read it."""

    name: Name
    recipe: Local[Path]
    seeds: Seeds = (0,)
    concurrent: int = Field(1, ge=1)  # trials at once
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)  # of every cell: [settings.run] steps = 16
    cell: tuple[Cell, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _nothing_twice(self) -> Study:
        _refuse_repeated("cell", [cell.name for cell in self.cell])
        for cell in self.cell:
            _refuse_repeated(f"seeds of cell {cell.name!r}: seed", self.seeds_of(cell))
        return self

    def seeds_of(self, cell: Cell) -> tuple[int, ...]:
        """The seeds a cell is run with."""
        return self.seeds if cell.seeds is None else cell.seeds

    def groups(self) -> list[GroupName]:
        """The groups that have a cell, in the order of `GroupName`."""
        return [group for group in get_args(GroupName) if any(group in cell.group for cell in self.cell)]


def load_study(path: Path) -> Study:
    """The study of a TOML file. Raises `ConfigError` naming key, value, expectation and the nearest right key."""
    tree = read_toml(path, "study", "workflows/studies/smoke.toml")
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in in_lines(error, _unknown))) from None
    return study.model_copy(update={"recipe": (path.parent / study.recipe).resolve()})


def _unknown(problem: Problem) -> str:
    place, _, name = problem.where.rpartition(".")
    keys = Cell.model_fields if place.startswith("cell.") else Study.model_fields
    return f"unknown key {problem.where!r}{did_you_mean(name, keys, 0.5) or '; keys: ' + ', '.join(keys)}"


def _refuse_repeated(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value!r} is named twice: runs are told apart by it, so name each once")
        seen.add(value)
