"""The study's figures: for each group a folder of PNGs, a figure a metric, and an overview."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from calibadv.plots.style import INK, MUTED, SCORE_BINS, Ink, ink_of, legend_of, save, styled
from calibadv.studies.curves import BY_FILE, CURVES, draw_curve, has_curve, shown_histories
from calibadv.studies.grid import Plan
from calibadv.studies.results import CellResult, Spread
from calibadv.studies.study import GroupName
from calibadv.tracking.series import series

_LEAST_SPAN = 10.0  # points of F1 x 100 a sweep shows at least: noise must not fill the panel
_ERROR: dict[str, Any] = {"ecolor": INK, "elinewidth": 1.2, "capsize": 3}
OVERVIEW = ("f1_eval", "f1_train", "entropy", "high_ppl", "neg_pos_ratio")


def write_figures(plan: Plan, results: Sequence[CellResult], groups: Collection[GroupName] | None = None) -> list[Path]:
    """Write plots/<group>/<figure>.png of what was measured, of all groups or of those named; the files written."""
    ink = ink_of([cell.name for cell in plan.study.cell if group in cell.group] for group in plan.study.groups())
    written: list[Path] = []
    for group in plan.study.groups():
        members = [result for result in results if group in result.cell.group]
        if (groups is None or group in groups) and any(run.history for result in members for run in result.runs):
            written += _group_figures(plan.folder / "plots" / group, group, members, ink)
    return written


def overview(results: Sequence[CellResult], ink: Ink) -> Figure:
    """Two rows of three panels: F1 held out, in training, at the end; entropy, degenerate outputs, advantage ratio."""
    figure = Figure(figsize=(13.2, 7.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    panels = figure.subplots(2, 3)
    curves = [panels[0, 0], panels[0, 1], *panels[1]]
    for axes, name in zip(curves, OVERVIEW, strict=True):
        draw_curve(axes, results, BY_FILE[name], ink, legend=False)
        if not has_curve(results, BY_FILE[name]):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
    draw_final_f1(panels[0, 2], results, ink)
    # Every cell that has begun is in the panel of training F1.
    legend_of(panels[0, 1], names_a_row=8, fontsize=10)
    return figure


def _group_figures(folder: Path, group: GroupName, results: Sequence[CellResult], ink: Ink) -> list[Path]:
    written = [save(overview(results, ink), folder / "overview.png")]
    for curve in (curve for curve in CURVES if has_curve(results, curve)):
        written.append(
            _single(folder / f"{curve.file}.png", partial(draw_curve, results=results, curve=curve, ink=ink))
        )
    if any(score_shares(result) for result in results):
        written.append(_single(folder / "scores.png", lambda axes: draw_scores(axes, results), len(results)))
    if any(result.finals("f1") for result in results):
        ladder = group == "ladder"
        name = "ladder.png" if ladder else "f1_final.png"
        written.append(
            _single(folder / name, lambda axes: draw_final_f1(axes, results, ink, ladder=ladder), len(results))
        )
    if group == "lambda" and any(result.finals("f1") and result.lam is not None for result in results):
        written.append(_single(folder / "sweep.png", lambda axes: draw_sweep(axes, results, ink)))
    return written


def _single(path: Path, draw: Callable[[Axes], None], bars: int = 0) -> Path:
    """One panel in a file; bars need height by their number."""
    figure = Figure(figsize=(6.4, max(2.6, 1.3 + 0.42 * bars) if bars else 4.2), layout="constrained")
    draw(figure.add_subplot())
    return save(figure, path)


def draw_final_f1(axes: Axes, results: Sequence[CellResult], ink: Ink, *, ladder: bool = False) -> None:
    """Final F1 x 100 a finished cell, mean ± deviation over seeds; on a ladder, with the gain over its first cell."""
    styled(axes, "Ablation ladder: final F1 × 100" if ladder else "Final F1 × 100", "mean ± deviation over seeds")
    spreads = {result.cell.name: Spread.of(result.finals("f1")) for result in results}
    means = {name: 100 * spread.mean for name, spread in spreads.items() if spread.mean is not None}
    first = next(iter(means.values()), 0.0)
    for place, (name, mean) in enumerate(means.items()):
        std = spreads[name].std
        axes.barh(place, mean, color=ink[name][0], height=0.62)
        if std is not None:
            axes.errorbar(mean, place, xerr=100 * std, **_ERROR)
        gain = f"  ({mean - first:+.1f})" if ladder and place else ""
        axes.annotate(
            f"{mean:.1f}{gain}",
            (mean + 100 * (std or 0.0), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    _names(axes, list(means))
    axes.set_xlim(0, (1.35 if ladder else 1.18) * max([*means.values(), 1.0]))


def draw_sweep(axes: Axes, results: Sequence[CellResult], ink: Ink) -> None:
    """Final F1 × 100 over λ, a line a method; a cell whose method has no λ is a level to read the line against."""
    styled(axes, "Sweep of λ: final F1 × 100", "λ (mean ± deviation over seeds)")
    swept: dict[str, list[CellResult]] = {}
    for result in (result for result in results if result.finals("f1")):
        if result.lam is None:
            color, _ = ink[result.cell.name]
            level = 100 * fmean(result.finals("f1"))
            axes.axhline(level, color=color, linewidth=1.6, linestyle=(0, (4, 2)), label=result.cell.name)
        else:
            swept.setdefault(result.cell.method, []).append(result)
    for method, cells in swept.items():
        cells.sort(key=lambda result: result.lam or 0.0)
        spreads = [Spread.of(result.finals("f1")) for result in cells]
        axes.errorbar(
            [result.lam or 0.0 for result in cells],
            [100 * (spread.mean or 0.0) for spread in spreads],
            yerr=[100 * (spread.std or 0.0) for spread in spreads],
            color=ink[cells[0].cell.name][0],
            marker="o",
            linewidth=2,
            label=method,
            **_ERROR,
        )
    lams = sorted({result.lam for cells in swept.values() for result in cells if result.lam is not None})
    if lams and lams[0] > 0:  # at 0 there is no logarithm
        axes.set_xscale("log")
    axes.set_xticks(lams)
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    room = max(0.0, _LEAST_SPAN - (high - low)) / 2
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    legend_of(axes)


def draw_scores(axes: Axes, results: Sequence[CellResult]) -> None:
    """How the silver scores of queries are distributed in each cell: mean over its training steps and seeds."""
    styled(axes, "Silver scores of queries", "share of queries, all training steps")
    shares = {result.cell.name: score_shares(result) for result in results}
    drawn = {name: share for name, share in shares.items() if share}
    for place, share in enumerate(drawn.values()):
        left = 0.0
        for width, (_, label, color) in zip(share, SCORE_BINS, strict=True):
            axes.barh(place, width, left=left, color=color, height=0.62, label=None if place else label)
            left += width
    _names(axes, list(drawn))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend_of(axes)


def score_shares(result: CellResult) -> list[float] | None:
    """Share of queries with c = 0, 1/3, 2/3 and 1, mean over steps that had queries; None where none was measured."""
    found = [
        [value for history in shown_histories(result) for value in series(history, f"silver/score_bin_{name}")[1]]
        for name, *_ in SCORE_BINS
    ]
    return [fmean(values) for values in found] if all(found) else None


def _names(axes: Axes, names: Sequence[str]) -> None:
    """The cells from top to bottom, their names beside the bars."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if not names:
        axes.set(xticks=[])
        axes.text(0.5, 0.5, "no run has finished yet", transform=axes.transAxes, ha="center", color=MUTED)
