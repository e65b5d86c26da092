"""table.md and table.csv of a study: a row a cell, a table a group, every figure with its spread over seeds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibadv.files import whole_file, write_text
from calibadv.studies.figures import write_figures
from calibadv.studies.grid import Plan
from calibadv.studies.results import NONE, CellResult, Spread, State, bootstrap_f1, read_results
from calibadv.studies.study import GroupName

GROUP_TITLES: Mapping[GroupName, str] = {
    "table": "Methods",
    "ladder": "Ablation ladder",
    "lambda": "Sweep of λ",
    "stress": "Stress",
}

_LEGEND = """\
After the last step, over all test questions, greedy: F1, EM and format × 100, searches a question; mean ± standard
deviation over seeds. 95 %: bootstrap interval of F1 over questions, each with the answers of all seeds. Collapse: the
step at which training F1 falls for good, by seed where any does. Tokens (all training steps; reused: of a prefix shared
by several rollouts) and time: mean over seeds. Runs of one study share the machine, so that times compare roughly."""


Columns = dict[str, Callable[["Row"], str]]
_WORDS = ("cell", "method", "runs")  # columns of words


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


@dataclass(frozen=True, slots=True)
class Row:
    """A cell's figures. F1, EM and format in [0, 1], time in seconds."""

    cell: str
    method: str
    lam: float | None
    runs: str  # "3", or how many of them are done, failed, not finished
    f1: Spread
    interval: tuple[float, float] | None
    em: Spread
    format: Spread
    searches: Spread
    benchmarks: Mapping[str, Spread]  # F1 by data set
    collapse: str
    tokens_sampled: float | None
    tokens_reused: float | None
    wall_s: float | None


def write_report(plan: Plan, groups: Collection[GroupName] | None = None) -> Report:
    """Write table.md, table.csv and plots/; figures of the named groups alone, for they take seconds."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    results = read_results(plan)
    return Report(tuple(results), tuple(write_tables(plan, results)), tuple(write_figures(plan, results, groups)))


def table_row(result: CellResult) -> Row:
    """The figures of a cell's finished runs."""
    wall_s = [float(run.summary["wall_s"]) for run in result.done if "wall_s" in run.summary]
    return Row(
        cell=result.cell.name,
        method=result.cell.method,
        lam=result.lam,
        runs=_runs(result),
        f1=Spread.of(result.finals("f1")),
        interval=bootstrap_f1(run.f1_by_question for run in result.done),
        em=Spread.of(result.finals("em")),
        format=Spread.of(result.finals("format")),
        searches=Spread.of(result.finals("searches")),
        benchmarks=_benchmarks(result),
        collapse=_collapse(result),
        tokens_sampled=Spread.of(result.totals("rollout/tokens_sampled")).mean,
        tokens_reused=Spread.of(result.totals("rollout/tokens_reused")).mean,
        wall_s=Spread.of(wall_s).mean,
    )


def write_tables(plan: Plan, results: Sequence[CellResult]) -> list[Path]:
    """Write table.md, a table a group, and table.csv, all of them with a column that names the group."""
    rows = {result.cell.name: table_row(result) for result in results}
    tables = {
        group: [rows[cell.name] for cell in plan.study.cell if group in cell.group] for group in plan.study.groups()
    }
    markdown, values = plan.folder / "table.md", plan.folder / "table.csv"
    parts = [f"# {plan.study.name}", _LEGEND]
    for group, of_group in tables.items():
        parts += [f"## {GROUP_TITLES[group]}", _lines(_columns(group), of_group)]
        names = list(dict.fromkeys(name for row in of_group for name in row.benchmarks))
        parts += ["F1 × 100 by data set:", _lines(_benchmark_columns(names), of_group)] if names else []
    failures = [
        f"- {run.run.name}: `{_last_line(run.failure)}`" for result in results for run in result.runs if run.failure
    ]
    parts += ["## Failed\n\n" + "\n".join(failures)] if failures else []
    write_text(markdown, "\n\n".join(parts) + "\n")
    with whole_file(values) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        lines = [_csv_line(group, row) for group, of_group in tables.items() for row in of_group]
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return [markdown, values]


def _columns(group: GroupName) -> Columns:
    return {
        "cell": lambda row: row.cell,
        "method": lambda row: row.method,
        **({"λ": lambda row: NONE if row.lam is None else f"{row.lam:g}"} if group == "lambda" else {}),
        "runs": lambda row: row.runs,
        "F1": lambda row: row.f1.text(100),
        "95 %": lambda row: f"{100 * row.interval[0]:.1f} to {100 * row.interval[1]:.1f}" if row.interval else NONE,
        "EM": lambda row: row.em.text(100),
        "format": lambda row: row.format.text(100),
        "searches": lambda row: row.searches.text(digits=2),
        "collapse": lambda row: row.collapse,
        "tokens sampled": lambda row: _count(row.tokens_sampled),
        "tokens reused": lambda row: _count(row.tokens_reused),
        "time": lambda row: NONE if row.wall_s is None else f"{row.wall_s / 60:.1f} min",
    }


def _benchmark_columns(names: Sequence[str]) -> Columns:
    def of(name: str) -> Callable[[Row], str]:
        return lambda row: row.benchmarks[name].text(100) if name in row.benchmarks else NONE

    return {"cell": lambda row: row.cell, **{name: of(name) for name in names}}


def _lines(columns: Columns, rows: Sequence[Row]) -> str:
    head = ["---" if name in _WORDS else "---:" for name in columns]  # numbers are set flush right
    lines = [list(columns), head, *([text(row) for text in columns.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _csv_line(group: GroupName, row: Row) -> dict[str, object]:
    low, high = row.interval or (None, None)
    spreads = {"f1": row.f1, "em": row.em, "format": row.format, "searches": row.searches}
    return {
        "group": group,
        "cell": row.cell,
        "method": row.method,
        "lam": row.lam,
        "runs": row.runs,
        **{f"{name}_{part}": getattr(spread, part) for name, spread in spreads.items() for part in ("mean", "std")},
        "f1_low": low,
        "f1_high": high,
        "f1_by_data_set": ";".join(f"{name}={spread.mean}" for name, spread in row.benchmarks.items()),
        "collapse": row.collapse,
        "tokens_sampled": row.tokens_sampled,
        "tokens_reused": row.tokens_reused,
        "wall_s": row.wall_s,
    }


def _benchmarks(result: CellResult) -> dict[str, Spread]:
    by_run = [run.benchmarks() for run in result.done]
    names = dict.fromkeys(name for found in by_run for name in found)
    return {name: Spread.of([found[name] for found in by_run if name in found]) for name in names}


def _runs(result: CellResult) -> str:
    if len(result.done) == len(result.runs):
        return str(len(result.runs))
    counts = {state: result.in_state(state) for state in State if state is not State.DONE}
    return ", ".join(
        [f"{len(result.done)} of {len(result.runs)}", *(f"{n} {state}" for state, n in counts.items() if n)]
    )


def _collapse(result: CellResult) -> str:
    points = [run.collapse() for run in result.done]
    if not points:
        return NONE
    if not any(points):
        return "none"
    steps = result.runs[0].run.config.run.steps
    return ", ".join("none" if point is None else f"{point}/{steps}" for point in points)


def _count(tokens: float | None) -> str:
    if tokens is None:
        return NONE
    if tokens < 1e4:
        return f"{tokens:.0f}"
    return f"{tokens / 1e6:.2f} M" if tokens >= 1e6 else f"{tokens / 1e3:.0f} k"


def _last_line(text: str) -> str:
    """The error itself, below its traceback, fit for a line of Markdown code."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return (lines or ["?"])[-1].replace("`", "'")
