"""What a study comes to at the end: F1 a cell, the ablation ladder, the sweep of λ, and how scores are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from calibadv.plots.style import BIN_COLORS, INK, MUTED, Ink, legend_of, styled
from calibadv.studies.curves import shown_histories
from calibadv.studies.results import CellResult
from calibadv.studies.spread import Spread
from calibadv.tracking.series import series

_BINS = {"0": "c = 0", "0.33": "c = 1/3", "0.67": "c = 2/3", "1": "c = 1"}
_LEAST_SPAN = 10.0  # points of F1 x 100 a sweep shows at least: noise must not fill the panel
_ERROR: dict[str, Any] = {"ecolor": INK, "elinewidth": 1.2, "capsize": 3}


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
        for width, (label, color) in zip(share, zip(_BINS.values(), BIN_COLORS, strict=True), strict=True):
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
        for name in _BINS
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
