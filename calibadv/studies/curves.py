"""Metrics over training steps: a line a cell, the mean over its seeds, with a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from calibadv.plots.style import MUTED, Ink, legend_of, styled, whole_steps
from calibadv.studies.results import CellResult
from calibadv.tracking.series import History, mean_and_spread, running_mean, series


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric's figure."""

    file: str
    metric: str
    title: str
    low: float | None = None  # of the vertical axis; None: as the data
    high: float | None = None
    share: bool = False  # shown in per cent
    measured: bool = False  # at few steps and not sampled: points, not smoothed
    level: float | None = None  # a line to read the values against
    log_above: float | None = None  # logarithmic where a mean goes beyond: a collapse would flatten all else


CURVES = (
    Curve("f1_eval", "eval/f1", "F1 on held-out questions", low=0, high=1, measured=True),
    Curve("f1_train", "reward/f1", "F1 in training", low=0, high=1),
    Curve("format", "reward/format", "Format reward in training", low=0, high=1.02),
    Curve("searches", "rollout/searches", "Searches per rollout in training", low=0),
    Curve("entropy", "policy/entropy", "Policy entropy (nats)", low=0),
    Curve("token_probability", "policy/token_probability", "Mean probability of sampled tokens"),
    Curve("ppl", "policy/ppl", "Policy perplexity", low=1, log_above=20),
    Curve("high_ppl", "rollout/high_ppl_ratio", "Outputs with perplexity above 50", low=0, share=True),
    Curve("neg_pos_ratio", "advantage/neg_pos_ratio", "Negative-to-positive advantage ratio", low=0, level=1.0),
    Curve(
        "penalised_all_silver",
        "advantage/penalised_all_silver",
        "Penalised queries whose documents are all silver",
        low=0,
        high=1,
        share=True,
    ),
    Curve(
        "penalised_some_silver",
        "advantage/penalised_some_silver",
        "Penalised queries with a silver document",
        low=0,
        high=1,
        share=True,
    ),
    Curve("score_mean", "silver/score_mean", "Mean silver score c of queries", low=0, high=1),
    Curve("empty_silver", "silver/empty_share", "Groups without a silver document", low=0, high=1, share=True),
    Curve("softened", "silver/softened_share", "Softened queries", low=0, share=True),
)
BY_FILE = {curve.file: curve for curve in CURVES}


def shown_histories(result: CellResult) -> list[History]:
    """Those of the finished runs; while there is none, of whatever has begun."""
    return [run.history for run in result.done] or [run.history for run in result.runs if run.history]


def has_curve(results: Sequence[CellResult], curve: Curve) -> bool:
    """Whether any shown run measured the metric."""
    return any(curve.metric in row for result in results for history in shown_histories(result) for row in history)


def draw_curve(axes: Axes, results: Sequence[CellResult], curve: Curve, ink: Ink, *, legend: bool = True) -> None:
    """The metric of every cell."""
    styled(axes, curve.title)
    if curve.level is not None:
        axes.axhline(curve.level, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    for result in results:
        steps, mean, spread = mean_and_spread(shown_histories(result), curve.metric, smooth=not curve.measured)
        if not len(steps):
            continue
        color, style = ink[result.cell.name]
        marker = "o" if curve.measured or len(steps) == 1 else None
        axes.plot(
            steps,
            mean,
            color=color,
            linestyle=style,
            linewidth=2,
            marker=marker,
            markersize=5,
            label=result.cell.name,
            clip_on=False,  # a line that lies on the edge, as a share of 0 does, is seen whole
        )
        if curve.log_above is not None and mean.max() > curve.log_above:
            axes.set_yscale("log")
        if spread is not None:
            axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
    if curve.metric == "reward/f1":
        _mark_collapses(axes, results, ink)
    whole_steps(axes)
    if curve.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if curve.low is not None or curve.high is not None:
        axes.set_ylim(bottom=curve.low, top=curve.high)
    if curve.share and curve.high is None:
        axes.set_ylim(top=max(0.1, axes.get_ylim()[1]))
    if legend:
        legend_of(axes)


def _mark_collapses(axes: Axes, results: Sequence[CellResult], ink: Ink) -> None:
    """A cross where a seed's F1 begins to fall for good."""
    for result in results:
        for run in result.runs:
            if (step := run.collapse()) is not None:
                steps, values = series(run.history, "reward/f1")
                height = running_mean(values)[steps.tolist().index(step)]
                color, _ = ink[result.cell.name]
                axes.plot([step], [height], color=color, marker="X", markersize=8, markeredgecolor="white", zorder=4)
