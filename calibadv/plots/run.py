"""Figures of a run from the history of its metrics: one a theme, and an overview of six."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from calibadv.plots.panels import PANELS, Panel
from calibadv.plots.style import INK, MUTED, save, styled, whole_steps
from calibadv.tracking.series import History, has_any

OVERVIEW = ("reward", "certainty", "neg_pos_ratio", "silver", "searches", "time")


def write_plots(history: History, folder: Path) -> list[Path]:
    """Write a PNG for each panel that has data, and overview.png; the files written, overview first.

    `history` is a run's metrics.jsonl: a dict a step, each with "step". A metric missing from a step is a gap.
    """
    if not history:
        return []
    written = [write_overview(history, folder)]
    for name, (panel, metrics) in PANELS.items():
        if has_any(history, metrics):
            figure = Figure(figsize=(6.4, 4.0), layout="constrained")
            _draw(figure.add_subplot(), panel, history)
            written.append(save(figure, folder / f"{name}.png"))
    return written


def write_overview(history: History, folder: Path) -> Path:
    """Write overview.png alone; the file. What the run's page shows while it is trained."""
    return save(overview(history), folder / "overview.png")


def overview(history: History) -> Figure:
    """Two rows of three panels: what the README shows."""
    figure = Figure(figsize=(13.2, 7.0), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    for axes, name in zip(figure.subplots(2, 3).flat, OVERVIEW, strict=True):
        panel, metrics = PANELS[name]
        _draw(axes, panel, history)
        if not has_any(history, metrics):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "not measured in this run", transform=axes.transAxes, ha="center", color=MUTED)
    return figure


def _draw(axes: Axes, panel: Panel, history: History) -> None:
    known = set(axes.figure.axes)
    panel(axes, history)
    right = [other for other in axes.figure.axes if other not in known]  # a panel's second scale, drawn on top
    title = axes.get_title()
    axes.set_title("")
    whole_steps(styled(axes, title))
    found = [part.get_legend_handles_labels() for part in (axes, *right)]
    handles, labels = [h for part in found for h in part[0]], [name for part in found for name in part[1]]
    if handles:
        # Below the axes, where a legend hides no data.
        axes.legend(
            handles,
            labels,
            ncols=min(len(handles), 5),
            fontsize=8.5,
            frameon=False,
            labelcolor=INK,
            columnspacing=1.2,
            handlelength=1.4,
            handletextpad=0.5,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.15),
        )
