"""Figures of a run from the history of its metrics: one a theme, and an overview of six."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from calibadv.plots.panels import PANELS, draw
from calibadv.plots.style import MUTED, save
from calibadv.tracking.series import History, has_any

OVERVIEW = ("reward", "certainty", "neg_pos_ratio", "silver", "searches", "time")


def write_plots(history: History, folder: Path) -> list[Path]:
    """Write a PNG for each panel that has data, and overview.png; the files written, overview first.

    `history` is a run's metrics.jsonl: a dict a step, each with "step". A metric missing from a step is a gap.
    """
    if not history:
        return []
    written = [write_overview(history, folder)]
    for name, panel in PANELS.items():
        if has_any(history, panel.metrics):
            figure = Figure(figsize=(6.4, 4.0), layout="constrained")
            draw(figure.add_subplot(), panel, history)
            written.append(save(figure, folder / f"{name}.png"))
    return written


def write_overview(history: History, folder: Path) -> Path:
    """Write overview.png alone; the file. What the run's page shows while it is trained."""
    return save(overview(history), folder / "overview.png")


def overview(history: History) -> Figure:
    """Two rows of three panels: what the README shows."""
    figure = Figure(figsize=(13.2, 7.0), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    for axes, name in zip(figure.subplots(2, 3).flat, OVERVIEW, strict=True):
        panel = PANELS[name]
        draw(axes, panel, history)
        if not has_any(history, panel.metrics):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "not measured in this run", transform=axes.transAxes, ha="center", color=MUTED)
    return figure
