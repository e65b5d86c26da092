"""The panels of a run's figures: each draws one theme of the history onto axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from calibadv.plots.style import BIN_COLORS, BLUE, GREEN, INK, MUTED, ORANGE, RED, VIOLET
from calibadv.tracking.series import BENCHMARKS, History, collapse_point, has_any, names, running_mean, series
from calibadv.views.summary import TIME_PARTS

_TIME_COLORS = (BLUE, ORANGE, GREEN, VIOLET, "#b6bcc8")

Panel = Callable[[Axes, History], None]


def reward_panel(axes: Axes, history: History) -> None:
    """Training reward and F1, F1 on held-out questions, and where the training F1 collapsed."""
    axes.set_title("Reward and F1")
    _line(axes, history, "reward/mean", "reward (train)", MUTED)
    _line(axes, history, "reward/f1", "F1 (train)", BLUE)
    steps, values = series(history, "eval/f1")
    if len(steps):
        axes.plot(steps, values, color=ORANGE, marker="o", markersize=5, linewidth=1.6, label="F1 (held out)")
    step = collapse_point(history)
    if step is not None:
        axes.axvline(step, color=RED, linewidth=1.4, linestyle=(0, (4, 2)), label=f"collapse at step {step}")
    axes.set_ylim(0, 1)


def benchmarks_panel(axes: Axes, history: History) -> None:
    """F1 on each benchmark, and the mean of them."""
    axes.set_title("F1 by benchmark (held out)")
    mean = f"{BENCHMARKS}mean"
    for metric in (*(name for name in names(history, BENCHMARKS) if name != mean), mean):
        look = {"color": INK, "linewidth": 2.4} if metric == mean else {"linewidth": 1.4}
        axes.plot(*series(history, metric), marker="o", markersize=4, label=metric.removeprefix(BENCHMARKS), **look)
    axes.set_ylim(0, 1)


def format_panel(axes: Axes, history: History) -> None:
    """Share of rollouts that keep the format, and exact match."""
    axes.set_title("Format and exact match")
    _line(axes, history, "reward/format", "format", GREEN)
    _line(axes, history, "reward/em", "exact match", BLUE)
    axes.set_ylim(0, 1.02)


def certainty_panel(axes: Axes, history: History) -> None:
    """Entropy and perplexity of the policy, and the share of outputs that are degenerate."""
    axes.set_title("Entropy and perplexity")
    _line(axes, history, "policy/entropy", "entropy (nats)", BLUE)
    _line(axes, history, "policy/ppl", "policy PPL", GREEN)
    values = series(history, "policy/ppl")[1]
    if values.size and values.max() > 20:  # a collapse reaches thousands, beside which an entropy is not to be seen
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom=0)
    right = _right_share(axes, history, "rollout/high_ppl_ratio", "PPL > 50 (right)", RED)
    if right is not None:
        right.set_ylim(0, min(1.0, max(0.1, right.get_ylim()[1])))


def probability_panel(axes: Axes, history: History) -> None:
    """How sure the policy was of the tokens that it sampled, and how often it repeats itself."""
    axes.set_title("Sampled tokens")
    _line(axes, history, "policy/token_probability", "mean probability", BLUE)
    _line(axes, history, "rollout/repetition", "repeated 4-grams", RED)
    axes.set_ylim(0, 1.02)


def endings_panel(axes: Axes, history: History) -> None:
    """How rollouts end where they should answer."""
    axes.set_title("How rollouts end")
    _line(axes, history, "rollout/answered", "answer", GREEN)
    _line(axes, history, "rollout/void", "void turn", RED)
    _line(axes, history, "rollout/truncated", "token limit", ORANGE)
    _line(axes, history, "rollout/forced_final", "search, none left", VIOLET)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1.02)


def neg_pos_panel(axes: Axes, history: History) -> None:
    """Negative over positive advantage mass, before and after calibration; balanced is 1."""
    axes.set_title("Negative-to-positive advantage ratio")
    axes.axhline(1.0, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    _line(axes, history, "advantage/neg_pos_ratio_before", "before calibration", RED)
    _line(axes, history, "advantage/neg_pos_ratio", "after", BLUE)
    _line(axes, history, "advantage/neg_pos_ratio_final", "after, final step", GREEN)
    axes.set_ylim(bottom=0)


def silver_panel(axes: Axes, history: History) -> None:
    """How the scores c of intermediate queries are distributed, and their mean."""
    axes.set_title("Silver score c of queries")
    steps, first = series(history, "silver/score_bin_0")
    rows = [running_mean(series(history, f"silver/score_bin_{name}")[1]) for name in ("0", "0.33", "0.67", "1")]
    if len(steps) and all(len(row) == len(first) for row in rows):
        labels = ["c = 0", "c = 1/3", "c = 2/3", "c = 1"]
        axes.stackplot(steps, *rows, labels=labels, colors=BIN_COLORS, linewidth=0)
    _line(axes, history, "silver/score_mean", "mean c", ORANGE)
    axes.set_ylim(0, 1)


def silver_set_panel(axes: Axes, history: History) -> None:
    """Silver documents of a group that has any, and the share of groups that have none."""
    axes.set_title("Silver set")
    _line(axes, history, "silver/size", "documents, where there are any", BLUE)
    axes.set_ylim(bottom=0)
    right = _right_share(axes, history, "silver/empty_share", "groups without (right)", RED)
    if right is not None:
        right.set_ylim(0, 1)


def searches_panel(axes: Axes, history: History) -> None:
    """Valid searches a rollout."""
    axes.set_title("Searches per rollout")
    _line(axes, history, "rollout/searches", "train", BLUE)
    steps, values = series(history, "eval/searches")
    if len(steps):
        axes.plot(steps, values, color=ORANGE, marker="o", markersize=5, linewidth=1.6, label="held out")
    axes.set_ylim(bottom=0)


def penalty_panel(axes: Axes, history: History) -> None:
    """Penalised steps with all documents silver or some, softened queries, and groups without a silver document."""
    axes.set_title("Who is penalised")
    _line(axes, history, "advantage/penalised_all_silver", "penalised queries, all documents silver", RED)
    _line(axes, history, "advantage/penalised_some_silver", "penalised queries, some silver", ORANGE)
    _line(axes, history, "silver/softened_share", "softened queries", BLUE)
    _line(axes, history, "silver/empty_share", "groups without silver documents", MUTED)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1)


def tokens_panel(axes: Axes, history: History) -> None:
    """Action tokens of a step: what the plan paid for, and what its branches took over from a shared prefix."""
    axes.set_title("Action tokens of a step")
    _line(axes, history, "rollout/tokens_sampled", "sampled", BLUE)
    _line(axes, history, "rollout/tokens_reused", "reused", GREEN)
    axes.set_ylim(bottom=0)


def updates_panel(axes: Axes, history: History) -> None:
    """Norm of the gradient, and the share of tokens on which the clip acts."""
    axes.set_title("Updates")
    _line(axes, history, "learner/grad_norm", "gradient norm", BLUE)
    axes.set_ylim(bottom=0)
    right = _right_share(axes, history, "learner/clipped_share", "clipped tokens (right)", RED, decimals=1)
    if right is not None:
        right.set_ylim(bottom=0)


def time_panel(axes: Axes, history: History) -> None:
    """Seconds of a step by what they were spent on."""
    axes.set_title("Where a step's time goes (s)")
    timed = [row for row in history if has_any([row], [f"time/{part}_s" for part in TIME_PARTS])]
    steps = [row["step"] for row in timed]
    look = dict(zip(TIME_PARTS, _TIME_COLORS, strict=True))
    parts = [part for part in TIME_PARTS if has_any(timed, [f"time/{part}_s"])]
    if parts:
        rows = [[row.get(f"time/{part}_s", 0.0) for row in timed] for part in parts]
        colors = [look[part] for part in parts]
        axes.stackplot(steps, *rows, labels=parts, colors=colors, linewidth=0, step="mid")
    axes.set_ylim(bottom=0)


PANELS: dict[str, tuple[Panel, Sequence[str]]] = {
    "reward": (reward_panel, ["reward/mean", "reward/f1", "eval/f1"]),
    "benchmarks": (benchmarks_panel, [f"{BENCHMARKS}mean"]),
    "format": (format_panel, ["reward/format", "reward/em"]),
    "certainty": (certainty_panel, ["policy/entropy", "policy/ppl", "rollout/high_ppl_ratio"]),
    "probability": (probability_panel, ["policy/token_probability", "rollout/repetition"]),
    "endings": (endings_panel, ["rollout/answered", "rollout/void", "rollout/truncated", "rollout/forced_final"]),
    "neg_pos_ratio": (neg_pos_panel, ["advantage/neg_pos_ratio", "advantage/neg_pos_ratio_before"]),
    "silver": (silver_panel, ["silver/score_mean", "silver/score_bin_0"]),
    "silver_set": (silver_set_panel, ["silver/size", "silver/empty_share"]),
    "penalty": (
        penalty_panel,
        [
            "advantage/penalised_all_silver",
            "advantage/penalised_some_silver",
            "silver/softened_share",
            "silver/empty_share",
        ],
    ),
    "searches": (searches_panel, ["rollout/searches", "eval/searches"]),
    "tokens": (tokens_panel, ["rollout/tokens_sampled"]),
    "updates": (updates_panel, ["learner/grad_norm", "learner/clipped_share"]),
    "time": (time_panel, [f"time/{part}_s" for part in TIME_PARTS]),
}
"""name of a figure -> how it is drawn, and the metrics of which it needs one"""


def _line(axes: Axes, history: History, metric: str, label: str, color: str) -> None:
    """The metric as a faint line and its running mean as a strong one."""
    steps, values = series(history, metric)
    if len(steps):
        smooth = running_mean(values)
        axes.plot(steps, values, color=color, alpha=0.22, linewidth=1)
        axes.plot(steps, smooth, color=color, linewidth=2, label=label, marker="o" if len(steps) == 1 else None)


def _right_share(axes: Axes, history: History, metric: str, label: str, color: str, decimals: int = 0) -> Axes | None:
    """A second scale on the right with a share in percent; None where it was not measured."""
    if not has_any(history, [metric]):
        return None
    right = axes.twinx()
    assert isinstance(right, Axes)
    _line(right, history, metric, label, color)
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
    right.spines[:].set_visible(False)
    right.tick_params(colors=color, length=0, labelsize=9)
    return right
