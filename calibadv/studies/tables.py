"""table.md, table.csv and steps.parquet of a study: a row a cell with its spread over seeds, a row a step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from calibadv.files import write_text
from calibadv.studies.figures import write_figures
from calibadv.studies.grid import Plan
from calibadv.studies.results import NONE, CellResult, Spread, State, bootstrap_f1, read_results
from calibadv.studies.study import GroupName
from calibadv.tables import markdown

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


def write_report(plan: Plan, groups: Collection[GroupName] | None = None) -> Report:
    """Write tables, steps and plots/; figures of the named groups alone, for they take seconds."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    results = read_results(plan)
    tables = [*write_tables(plan, results), write_steps(plan, results)]
    return Report(tuple(results), tuple(tables), tuple(write_figures(plan, results, groups)))


def write_tables(plan: Plan, results: Sequence[CellResult]) -> list[Path]:
    """Write table.md, a table a group, and table.csv, all of them with a column that names the group."""
    parts, rows = [f"# {plan.study.name}", _LEGEND], []
    for group in plan.study.groups():
        of_group = [result for result in results if group in result.cell.group]
        figures = [_figures(result) for result in of_group]
        rows += [{"group": group, **row} for row in figures]
        parts += [f"## {GROUP_TITLES[group]}", markdown(_shown(of_group, figures, group), _WORDS)]
        if any(map(_by_data_set, of_group)):
            by_data_set = [
                {"cell": result.cell.name, **{name: f1.text(100) for name, f1 in _by_data_set(result).items()}}
                for result in of_group
            ]
            parts += ["F1 × 100 by data set:", markdown(pd.DataFrame(by_data_set).fillna(NONE), _WORDS)]
    failures = [
        f"- {run.run.name}: `{_last_line(run.failure)}`" for result in results for run in result.runs if run.failure
    ]
    parts += ["## Failed\n\n" + "\n".join(failures)] if failures else []
    return [
        write_text(plan.folder / "table.md", "\n\n".join(parts) + "\n"),
        write_text(plan.folder / "table.csv", pd.DataFrame(rows, dtype=object).to_csv(index=False)),
    ]


def write_steps(plan: Plan, results: Sequence[CellResult]) -> Path:
    """Write steps.parquet, for a notebook: cell, seed, step and all metrics, a row a step of every run that began."""
    rows = [
        {"cell": result.cell.name, "seed": run.run.config.run.seed, **step}
        for result in results
        for run in result.runs
        for step in run.history
    ]
    path = plan.folder / "steps.parquet"
    pd.DataFrame(rows, columns=None if rows else ["cell", "seed", "step"]).to_parquet(path, index=False)
    return path


def _figures(result: CellResult) -> dict[str, Any]:
    """A cell's row of table.csv: F1, EM and format in [0, 1], time in seconds; None where nothing was measured.

    `collapsed`: runs whose training F1 fell for good; `collapse_step`: where, their mean.
    """
    spreads = {name: Spread.of(result.finals(name)) for name in ("f1", "em", "format", "searches")}
    low, high = bootstrap_f1(run.f1_by_question for run in result.done) or (None, None)
    wall_s = [float(run.summary["wall_s"]) for run in result.done if "wall_s" in run.summary]
    fell = [step for run in result.done if (step := run.collapse()) is not None]
    return {
        "cell": result.cell.name,
        "method": result.cell.method,
        "lam": result.lam,
        "runs": len(result.runs),
        **{state.value: result.in_state(state) for state in State},
        **{f"{name}_{part}": getattr(spread, part) for name, spread in spreads.items() for part in ("mean", "std")},
        "f1_low": low,
        "f1_high": high,
        "collapsed": len(fell),
        "collapse_step": Spread.of(fell).mean,
        "tokens_sampled": Spread.of(result.totals("rollout/tokens_sampled")).mean,
        "tokens_reused": Spread.of(result.totals("rollout/tokens_reused")).mean,
        "wall_s": Spread.of(wall_s).mean,
        **{f"f1_mean/{name}": f1.mean for name, f1 in _by_data_set(result).items()},
    }


def _shown(results: Sequence[CellResult], figures: Sequence[Mapping[str, Any]], group: GroupName) -> pd.DataFrame:
    """The rows of a group's table in texts."""
    rows = [_texts(result, row) for result, row in zip(results, figures, strict=True)]
    table = pd.DataFrame(rows)
    return table if group == "lambda" else table.drop(columns="λ")


def _texts(result: CellResult, row: Mapping[str, Any]) -> dict[str, str]:
    def spread(name: str, scale: float = 100, digits: int = 1) -> str:
        return Spread(row[f"{name}_mean"], row[f"{name}_std"]).text(scale, digits)

    return {
        "cell": row["cell"],
        "method": row["method"],
        "λ": NONE if row["lam"] is None else f"{row['lam']:g}",
        "runs": _runs(result),
        "F1": spread("f1"),
        "95 %": NONE if row["f1_low"] is None else f"{100 * row['f1_low']:.1f} to {100 * row['f1_high']:.1f}",
        "EM": spread("em"),
        "format": spread("format"),
        "searches": spread("searches", scale=1, digits=2),
        "collapse": _collapse(result),
        "tokens sampled": _count(row["tokens_sampled"]),
        "tokens reused": _count(row["tokens_reused"]),
        "time": NONE if row["wall_s"] is None else f"{row['wall_s'] / 60:.1f} min",
    }


def _by_data_set(result: CellResult) -> dict[str, Spread]:
    """F1 by data set, and their mean; {} where it was not measured."""
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
