"""The study's figures: for each group a folder of PNGs, a figure a metric, and an overview."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from calibadv.plots.style import MUTED, Ink, ink_of, legend_of, save
from calibadv.studies.bars import draw_final_f1, draw_scores, draw_sweep, score_shares
from calibadv.studies.curves import BY_FILE, CURVES, draw_curve, has_curve
from calibadv.studies.grid import Plan
from calibadv.studies.results import CellResult
from calibadv.studies.study import GroupName

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
