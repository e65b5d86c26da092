"""Figures of a run from the history of its metrics: one a theme, and an overview of six."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from calibadv.tracking.panels import GRID, INK, MUTED, PANELS, Panel
from calibadv.tracking.series import History, has_any

OVERVIEW = ("reward", "certainty", "neg_pos_ratio", "silver", "searches", "time")
_DPI = 160


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
            written.append(_save(figure, folder / f"{name}.png"))
    return written


def write_overview(history: History, folder: Path) -> Path:
    """Write overview.png alone; the file. What the run's page shows while it is trained."""
    folder.mkdir(parents=True, exist_ok=True)
    return _save(overview(history), folder / "overview.png")


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
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=10)
    axes.set_xlabel("step", color=MUTED, fontsize=9, labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(x=0.01)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
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


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)  # no pyplot: no global state, no window system, safe in any thread
    figure.savefig(path, dpi=_DPI, facecolor="white")
    return path
