"""What a report draws of a run's metrics: the panels of `calibadv.plots` as data, and what is marked on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibadv.alarms import Alarm, Limits, alarms
from calibadv.plots.panels import PANELS, Panel
from calibadv.plots.style import SCORE_BINS
from calibadv.tracking.series import BENCHMARKS, History, names
from calibadv.views.summary import TIME_PARTS


@dataclass(frozen=True, slots=True)
class Chart:
    """One pair of axes. `metrics`: (name, label, whether it is measured at few steps and not sampled)."""

    title: str
    metrics: tuple[tuple[str, str, bool], ...]
    high: float | None = None  # of the vertical axis, which begins at 0; None: as the data
    share: bool = False  # shown in per cent
    level: float | None = None
    log_above: float | None = None
    stacked: bool = False  # the metrics are parts of a whole


@dataclass(frozen=True, slots=True)
class Span:
    """An alarm of the sentinel, from the first bad step to the last one in which it was in force."""

    metric: str
    since: int
    until: int
    text: str


def charts_of(history: History) -> list[Chart]:
    """Every panel of which the history has a metric. A second scale becomes a chart of its own, so does a stack."""
    charts = [chart for panel in PANELS.values() for chart in _split(panel, history)]
    lengths = (("rollout/tokens", "whole rollout", False), ("rollout/action_tokens", "sampled", False))
    charts.append(Chart("Tokens a rollout", (*lengths, ("eval/action_tokens", "sampled, held out", True))))
    there = {metric for row in history for metric in row}
    return [chart for chart in charts if any(metric in there for metric, *_ in chart.metrics)]


def columns_of(history: History) -> dict[str, list[float | None]]:
    """Every metric over the history's rows, None where a row lacks it; "step" among them."""
    return {metric: [_short(row.get(metric)) for row in history] for metric in names(history, "")}


def alarm_spans(history: History, limits: Limits) -> list[Span]:
    """Each alarm once, as the sentinel raised it step by step.

    What a roll-back undid is not in the sentinel's own history; here the steps before one stay, so that an alarm may
    last longer than the sentinel's. A step that says it had no alarm ends all.
    """
    found: dict[tuple[str, int], tuple[Alarm, int]] = {}
    for length in range(1, len(history) + 1):
        row = history[length - 1]
        if row["step"] > 0 and row.get("sentinel/alarms", 1.0):
            for alarm in alarms(history[:length], limits):
                found[alarm.metric, alarm.since_step] = (alarm, int(row["step"]))
    return [Span(alarm.metric, alarm.since_step, until, alarm.text) for alarm, until in found.values()]


def _split(panel: Panel, history: History) -> list[Chart]:
    lines = tuple((line.metric, line.label, line.measured) for line in panel.lines)
    kept: Mapping[str, Any] = {"share": panel.share, "level": panel.level, "log_above": panel.log_above}
    charts = [Chart(panel.title, lines, panel.high, **kept)] if lines else []
    if panel.right is not None:
        label = panel.right.label.removesuffix(" (right)")
        charts.append(Chart(_capital(label), ((panel.right.metric, label, False),), share=True))
    if panel is PANELS["benchmarks"]:
        data_sets = names(history, BENCHMARKS)
        charts.append(Chart(panel.title, tuple((name, name.removeprefix(BENCHMARKS), True) for name in data_sets), 1))
    if panel is PANELS["silver"]:
        bins = tuple((f"silver/score_bin_{name}", label, False) for name, label, _ in SCORE_BINS)
        charts.append(Chart("Silver scores of queries", bins, 1, share=True, stacked=True))
    if panel is PANELS["time"]:
        charts.append(Chart(panel.title, tuple((f"time/{part}_s", part, False) for part in TIME_PARTS), stacked=True))
    return charts


def _short(value: float | None) -> float | None:
    """Six digits: more are not drawn, and cost a page of many steps half of its size."""
    return None if value is None else float(f"{value:.6g}")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def rollbacks(history: Sequence[Mapping[str, float]]) -> list[int]:
    """The steps whose update the sentinel took back."""
    seen, steps = 0.0, []
    for row in history:
        count = row.get("sentinel/rollbacks", seen)
        if count > seen:
            steps.append(int(row["step"]))
        seen = count
    return steps
