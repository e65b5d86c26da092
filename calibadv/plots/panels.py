"""The panels of a run's figures: what each shows of the history, as a table, and how one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from calibadv.plots.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    RED,
    SCORE_BINS,
    VIOLET,
    legend_below,
    styled,
    whole_steps,
)
from calibadv.tracking.series import BENCHMARKS, History, collapse_point, has_any, names, running_mean, series
from calibadv.views.summary import TIME_PARTS

_TIME_COLORS = dict(zip(TIME_PARTS, (BLUE, ORANGE, GREEN, VIOLET, "#b6bcc8"), strict=True))
_MEAN_F1 = f"{BENCHMARKS}mean"


@dataclass(frozen=True, slots=True)
class Line:
    """One metric over steps."""

    metric: str
    label: str
    color: str
    measured: bool = False  # at few steps and not sampled: points, not smoothed


@dataclass(frozen=True, slots=True)
class Panel:
    """One theme of the history on a pair of axes."""

    title: str
    lines: tuple[Line, ...]
    high: float | None = None  # of the vertical axis, which begins at 0, for values in between; None: as the data
    share: bool = False  # shown in per cent
    level: float | None = None  # a line to read the values against
    log_above: float | None = None  # logarithmic where a value goes beyond: a collapse would flatten all else
    right: Line | None = None  # a share, on a scale of its own
    right_span: float = 0.0  # which that scale shows at least
    more: Callable[[Axes, History], None] | None = None  # draws what is no line
    of: tuple[str, ...] = ()  # the metrics that `more` draws

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of which the panel needs one."""
        right = () if self.right is None else (self.right,)
        return (*(line.metric for line in (*self.lines, *right)), *self.of)


def draw(axes: Axes, panel: Panel, history: History) -> None:
    """Draws the panel with its title, scales and legend; a metric that no step carries leaves nothing."""
    if panel.level is not None:
        axes.axhline(panel.level, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    highest = max((_draw_line(axes, history, line) for line in panel.lines), default=0.0)
    if panel.more is not None:
        panel.more(axes, history)
    right = _draw_right(axes, panel, history)
    whole_steps(styled(axes, panel.title))
    if panel.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if panel.log_above is not None and highest > panel.log_above:
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        lowest, highest = axes.dataLim.intervaly  # a reward of the user's own may lie anywhere
        fits = panel.high is not None and highest <= panel.high * (1 + 1e-9)
        axes.set_ylim(bottom=0 if lowest >= 0 else None, top=panel.high if fits else None)
    legend_below(axes, *right)


def _draw_line(axes: Axes, history: History, line: Line) -> float:
    """The highest value of the line, which is drawn: sampled metrics faintly, with their running mean over them."""
    steps, values = series(history, line.metric)
    if not len(steps):
        return 0.0
    if line.measured:
        axes.plot(steps, values, color=line.color, marker="o", markersize=5, linewidth=1.6, label=line.label)
    else:
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, values, color=line.color, alpha=0.22, linewidth=1)
        axes.plot(steps, running_mean(values), color=line.color, linewidth=2, label=line.label, marker=marker)
    return float(values.max())


def _draw_right(axes: Axes, panel: Panel, history: History) -> list[Axes]:
    """The scale on the right, where its share was measured."""
    if panel.right is None or not has_any(history, [panel.right.metric]):
        return []
    right = axes.twinx()
    assert isinstance(right, Axes)
    _draw_line(right, history, panel.right)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_ylim(0, min(1.0, max(panel.right_span, right.get_ylim()[1])))
    right.spines[:].set_visible(False)
    right.tick_params(colors=panel.right.color, length=0, labelsize=9)
    return [right]


def _mark_collapse(axes: Axes, history: History) -> None:
    if (step := collapse_point(history)) is not None:
        axes.axvline(step, color=RED, linewidth=1.4, linestyle=(0, (4, 2)), label=f"collapse at step {step}")


def _draw_benchmarks(axes: Axes, history: History) -> None:
    for metric in (*(name for name in names(history, BENCHMARKS) if name != _MEAN_F1), _MEAN_F1):
        look = {"color": INK, "linewidth": 2.4} if metric == _MEAN_F1 else {"linewidth": 1.4}
        axes.plot(*series(history, metric), marker="o", markersize=4, label=metric.removeprefix(BENCHMARKS), **look)


def _stack_scores(axes: Axes, history: History) -> None:
    """A distribution is drawn whole or not at all."""
    found = [series(history, f"silver/score_bin_{name}") for name, *_ in SCORE_BINS]
    steps = found[0][0]
    if len(steps) and all(len(values) == len(steps) for _, values in found):
        _, labels, colors = zip(*SCORE_BINS, strict=True)
        axes.stackplot(steps, *(running_mean(values) for _, values in found), labels=labels, colors=colors, linewidth=0)


def _stack_times(axes: Axes, history: History) -> None:
    timed = [row for row in history if has_any([row], [f"time/{part}_s" for part in TIME_PARTS])]
    if parts := [part for part in TIME_PARTS if has_any(timed, [f"time/{part}_s"])]:
        rows = [[row.get(f"time/{part}_s", 0.0) for row in timed] for part in parts]
        colors = [_TIME_COLORS[part] for part in parts]
        axes.stackplot([row["step"] for row in timed], *rows, labels=parts, colors=colors, linewidth=0, step="mid")


PANELS = {
    "reward": Panel(
        "Reward and F1",
        (
            Line("reward/mean", "reward (train)", MUTED),
            Line("reward/f1", "F1 (train)", BLUE),
            Line("eval/f1", "F1 (held out)", ORANGE, measured=True),
        ),
        high=1,
        more=_mark_collapse,
    ),
    "benchmarks": Panel("F1 by benchmark (held out)", (), high=1, more=_draw_benchmarks, of=(_MEAN_F1,)),
    "format": Panel(
        "Format and exact match",
        (Line("reward/format", "format", GREEN), Line("reward/em", "exact match", BLUE)),
        high=1.02,
    ),
    "certainty": Panel(
        "Entropy and perplexity",
        (Line("policy/entropy", "entropy (nats)", BLUE), Line("policy/ppl", "policy PPL", GREEN)),
        log_above=20,
        right=Line("rollout/high_ppl_ratio", "PPL > 50 (right)", RED),
        right_span=0.1,
    ),
    "probability": Panel(
        "Sampled tokens",
        (
            Line("policy/token_probability", "mean probability", BLUE),
            Line("rollout/repetition", "repeated 4-grams", RED),
        ),
        high=1.02,
    ),
    "endings": Panel(
        "How rollouts end",
        (
            Line("rollout/answered", "answer", GREEN),
            Line("rollout/void", "void turn", RED),
            Line("rollout/truncated", "token limit", ORANGE),
            Line("rollout/forced_final", "search, none left", VIOLET),
        ),
        high=1.02,
        share=True,
    ),
    "neg_pos_ratio": Panel(
        "Negative-to-positive advantage ratio",
        (
            Line("advantage/neg_pos_ratio_before", "before calibration", RED),
            Line("advantage/neg_pos_ratio", "after", BLUE),
            Line("advantage/neg_pos_ratio_final", "after, final step", GREEN),
        ),
        level=1.0,
    ),
    "silver": Panel(
        "Silver score c of queries",
        (Line("silver/score_mean", "mean c", ORANGE),),
        high=1,
        more=_stack_scores,
        of=("silver/score_bin_0",),
    ),
    "silver_set": Panel(
        "Silver set",
        (Line("silver/size", "documents, where there are any", BLUE),),
        right=Line("silver/empty_share", "groups without (right)", RED),
        right_span=1.0,
    ),
    "penalty": Panel(
        "Who is penalised",
        (
            Line("advantage/penalised_all_silver", "penalised queries, all documents silver", RED),
            Line("advantage/penalised_some_silver", "penalised queries, some silver", ORANGE),
            Line("silver/softened_share", "softened queries", BLUE),
            Line("silver/empty_share", "groups without silver documents", MUTED),
        ),
        high=1,
        share=True,
    ),
    "searches": Panel(
        "Searches per rollout",
        (Line("rollout/searches", "train", BLUE), Line("eval/searches", "held out", ORANGE, measured=True)),
    ),
    "tokens": Panel(
        "Action tokens of a step",
        (Line("rollout/tokens_sampled", "sampled", BLUE), Line("rollout/tokens_reused", "reused", GREEN)),
    ),
    "updates": Panel(
        "Updates",
        (Line("learner/grad_norm", "gradient norm", BLUE),),
        right=Line("learner/clipped_share", "clipped tokens (right)", RED),
    ),
    "time": Panel(
        "Where a step's time goes (s)", (), more=_stack_times, of=tuple(f"time/{part}_s" for part in TIME_PARTS)
    ),
}
"""name of a figure -> its panel"""
