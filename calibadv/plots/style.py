"""How figures look: axes, colours, and in a study a colour a cell that is the same in all of its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from calibadv.files import whole_file

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
BLUE, ORANGE, GREEN, RED, VIOLET = "#2563eb", "#ea8a1a", "#15966b", "#d1434b", "#7c5cc4"
SCORE_BINS = (
    ("0", "c = 0", "#d9dde5"),
    ("0.33", "c = 1/3", "#a9c4f5"),
    ("0.67", "c = 2/3", "#5b8def"),
    ("1", "c = 1", "#1d4ed8"),
)
"""Of metrics silver/score_bin_*: name, label, colour."""

LineStyle = str | tuple[int, tuple[int, ...]]

COLORS = (BLUE, ORANGE, GREEN, RED, VIOLET, "#0891b2", "#db2777", "#8b5e34", "#7f9a12", "#475569")
STYLES: Sequence[LineStyle] = ("-", (0, (5, 2)), (0, (1, 1)))  # where the colours are used up
DPI = 160
_LETTERS = 95  # of a legend as wide as a panel; a wider one squeezes the axes
_LEGEND: Mapping[str, Any] = {"frameon": False, "labelcolor": INK, "handletextpad": 0.5}

Ink = Mapping[str, tuple[str, LineStyle]]
"""Colour and line style of each cell by name."""


def ink_of(groups: Iterable[Sequence[str]]) -> Ink:
    """The ink of the cells of all groups. A cell keeps its own from group to group.

    In each group its new cells take what is left of the first colours, so that two groups that list the same methods in
    the same order show them alike, and lines are dashed only where a group has more cells than there are colours.
    """
    inks = list(product(STYLES, COLORS))
    ink: dict[str, tuple[str, LineStyle]] = {}
    for cells in groups:
        taken = {ink[cell] for cell in cells if cell in ink}
        free = [(color, style) for style, color in inks if (color, style) not in taken]
        new = [cell for cell in cells if cell not in ink]
        ink |= {cell: free[place % len(free)] for place, cell in enumerate(new)}
    return ink


def styled(axes: Axes, title: str, x_label: str = "step") -> Axes:
    """Title above the left edge, no frame, a light grid."""
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=10)
    axes.set_xlabel(x_label, color=MUTED, fontsize=9, labelpad=1)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(which="both", colors=MUTED, labelsize=9, length=0)
    return axes


def whole_steps(axes: Axes) -> None:
    """A step is a whole number."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(x=0.01)


def legend_of(axes: Axes, *, names_a_row: int = 4, fontsize: float = 8.5) -> None:
    """The axes' legend below the whole figure, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.figure
    if handles and isinstance(figure, Figure):
        figure.legend(
            handles,
            labels,
            ncols=min(len(handles), names_a_row),
            fontsize=fontsize,
            loc="outside lower center",
            columnspacing=1.4,
            handlelength=2.2,
            **_LEGEND,
        )


def legend_below(axes: Axes, *right: Axes) -> None:
    """The legend of the axes, and of scales on their right, below them."""
    found = [part.get_legend_handles_labels() for part in (axes, *right)]
    handles, labels = [h for part in found for h in part[0]], [name for part in found for name in part[1]]
    widths = [len(label) + 6 for label in labels]  # in letters, with the line before it
    if handles:
        axes.legend(
            handles,
            labels,
            ncols=len(labels) if sum(widths) <= _LETTERS else max(_LETTERS // max(widths), 1),
            fontsize=8.5,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.15),
            columnspacing=1.2,
            handlelength=1.4,
            **_LEGEND,
        )


def save(figure: Figure, path: Path) -> Path:
    """Write the PNG in one move; no pyplot: no global state, no window system, safe in any thread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=DPI, facecolor="white", format="png")
    return path
