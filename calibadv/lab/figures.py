"""A study's pictures: curves of its cells, how long their runs last, and of many cells what each run came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from calibadv.lab.settings import LabRun
from calibadv.lab.survival import EVENTS, survival

PANELS = {
    "reward/mean": ("F1 x format", "linear"),
    "policy/entropy": ("entropy, nats", "linear"),
    "policy/tail_mass": ("mass on words nobody uses", "log"),
    "language/garbled": ("rollouts with such a word", "linear"),
}
SMOOTH = 600  # rollouts, 10 steps of the usual 60: one step's questions are easier than the next's
MANY = 12  # cells whose curves nobody tells apart
STYLES = ("-", "--", ":", "-.")  # lines are told apart without colour too


def draw_curves(store: pd.DataFrame, figures: pd.DataFrame, path: Path) -> None:
    """Writes a PNG: a column a measure, a line a cell, the median over its seeds, half of the seeds within its band.

    Over steps, or over rollouts where steps differ in size; a run that ended early keeps its last values. The last
    column is the held-out F1 of every run.
    """
    from matplotlib.figure import Figure

    sizes = {cell: _rollouts(rows) for cell, rows in store.groupby("cell", sort=False)}
    by_step = len(set(sizes.values())) == 1
    figure = Figure(figsize=(3.8 * (len(PANELS) + 1), 4.4), layout="constrained")
    *axes, last = figure.subplots(1, len(PANELS) + 1)
    for axis, (metric, (title, scale)) in zip(axes, PANELS.items(), strict=True):
        for index, (cell, rows) in enumerate(store.groupby("cell", sort=False)):
            curves = rows.pivot(index="step", columns="seed", values=metric)
            curves = curves.ffill().rolling(max(SMOOTH // sizes[cell], 1), min_periods=1).mean()
            curves.index = curves.index * (1 if by_step else sizes[cell])
            label = f"{cell} ({curves.shape[1]})" if axis is axes[0] else None
            _band(axis, curves, STYLES[index % len(STYLES)], label)
        axis.set(title=title, xlabel="step" if by_step else "rollouts", yscale=scale)
        axis.grid(alpha=0.3)
    for index, cell in enumerate(sizes):
        held_out = figures["held_out_f1"][figures["cell"] == cell]
        last.scatter([index] * len(held_out), held_out, s=18, color=f"C{index}", alpha=0.6)
        last.scatter([index], [held_out.mean()], marker="_", s=320, color=f"C{index}")
    last.set(title="held-out F1 x format, each run", xticks=[])
    last.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def _rollouts(rows: pd.DataFrame) -> int:
    """A step's, of the runs of a cell."""
    run = LabRun.stored(rows["settings"].iloc[0])
    return run.questions * run.samples


def draw_survival(figures: pd.DataFrame, path: Path) -> None:
    """Writes a panel an event: the share of each cell's runs that have lasted so long."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(EVENTS), 4.0), layout="constrained")
    axes = figure.subplots(1, len(EVENTS))
    for axis, (event, name) in zip(axes, EVENTS.items(), strict=True):
        for index, (cell, rows) in enumerate(figures.groupby("cell", sort=False)):
            steps, share = survival(rows, event)
            label = f"{cell} ({len(rows)})" if axis is axes[0] else None
            axis.step(steps, share, STYLES[index % len(STYLES)], where="post", label=label)
        axis.set(title=f"runs without {name}", xlabel="step", ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def draw_cells(figures: pd.DataFrame, path: Path) -> None:
    """Writes the held-out F1 of every run, a row a cell, the best mean on top; a hollow dot collapsed."""
    from matplotlib.figure import Figure

    means = figures.groupby("cell")["held_out_f1"].mean().sort_values()
    figure = Figure(figsize=(7.5, 1.2 + 0.28 * len(means)), layout="constrained")
    axis = figure.subplots()
    row = figures["cell"].map({cell: index for index, cell in enumerate(means.index)})
    collapsed = figures["collapsed_at"].notna()
    for those, face, label in ((~collapsed, "C0", "a run"), (collapsed, "none", "one that collapsed")):
        axis.scatter(figures["held_out_f1"][those], row[those], facecolors=face, edgecolors="C0", label=label)
    axis.scatter(means, range(len(means)), marker="|", s=260, color="C1", label="mean of the seeds")
    axis.set(xlabel="held-out F1 x format", yticks=range(len(means)), yticklabels=means.index)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def _band(axis: Any, curves: pd.DataFrame, style: str, label: str | None) -> None:
    (line,) = axis.plot(curves.index, curves.median(axis=1), style, label=label)
    if curves.shape[1] > 1:
        low, high = curves.quantile(0.25, axis=1), curves.quantile(0.75, axis=1)
        axis.fill_between(curves.index, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
