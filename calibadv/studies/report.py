"""Tables and figures of a study from the folders of its runs, whatever has finished by now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from calibadv.studies.figures import write_figures
from calibadv.studies.grid import Plan
from calibadv.studies.results import CellResult, State, read_results
from calibadv.studies.study import GroupName
from calibadv.studies.tables import write_tables


@dataclass(frozen=True, slots=True)
class Report:
    """What was written, and what it was written of."""

    results: tuple[CellResult, ...]
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(result.in_state(State.FAILED) for result in self.results)


def write_report(plan: Plan, groups: Collection[GroupName] | None = None) -> Report:
    """Write table.md, table.csv and plots/; figures of the named groups alone, for they take seconds."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    results = read_results(plan)
    return Report(tuple(results), tuple(write_tables(plan, results)), tuple(write_figures(plan, results, groups)))
