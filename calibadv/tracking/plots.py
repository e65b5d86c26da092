"""Figures of a run from the history of its metrics: one a theme, and an overview of six."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from calibadv.tracking.series import History, has_any, running_mean, series

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
BLUE, ORANGE, GREEN, RED, VIOLET = "#2563eb", "#ea8a1a", "#15966b", "#d1434b", "#7c5cc4"
BIN_COLORS = ("#d9dde5", "#a9c4f5", "#5b8def", "#1d4ed8")
TIME_PARTS = {"rollout": BLUE, "learn": ORANGE, "sync": GREEN, "eval": VIOLET, "other": "#b6bcc8"}
_DPI = 160

Panel = Callable[[Axes, History], None]


def write_plots(history: History, folder: Path) -> list[Path]:
    """Write a PNG for each panel that has data, and overview.png; the files written, overview first.

    `history` is a run's metrics.jsonl: a dict a step, each with "step". A metric missing from a step is a gap.
    """
    if not history:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = [_save(overview(history), folder / "overview.png")]
    for name, (panel, metrics) in PANELS.items():
        if has_any(history, metrics):
            figure = Figure(figsize=(6.4, 4.0), layout="constrained")
            _draw(figure.add_subplot(), panel, history)
            written.append(_save(figure, folder / f"{name}.png"))
    return written


def overview(history: History) -> Figure:
    """Two rows of three panels: what the README shows."""
    figure = Figure(figsize=(13.2, 7.0), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    names = ("reward", "certainty", "neg_pos_ratio", "silver", "searches", "time")
    for axes, name in zip(figure.subplots(2, 3).flat, names, strict=True):
        panel, metrics = PANELS[name]
        _draw(axes, panel, history)
        if not has_any(history, metrics):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "not measured in this run", transform=axes.transAxes, ha="center", color=MUTED)
    return figure


def reward_panel(axes: Axes, history: History) -> None:
    """Training reward and F1, and F1 on held-out questions."""
    axes.set_title("Reward and F1")
    _line(axes, history, "reward/mean", "reward (train)", MUTED)
    _line(axes, history, "reward/f1", "F1 (train)", BLUE)
    steps, values = series(history, "eval/f1")
    if len(steps):
        axes.plot(steps, values, color=ORANGE, marker="o", markersize=5, linewidth=1.6, label="F1 (held out)")
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
    axes.set_ylim(bottom=0)
    if has_any(history, ["rollout/high_ppl_ratio"]):
        right = axes.twinx()
        _line(right, history, "rollout/high_ppl_ratio", "PPL > 50 (right)", RED)
        right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.set_ylim(0, max(0.1, right.get_ylim()[1]))
        right.spines[:].set_visible(False)
        right.tick_params(colors=RED, length=0, labelsize=9)


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
    names = ("0", "0.33", "0.67", "1")
    steps, first = series(history, "silver/score_bin_0")
    rows = [running_mean(series(history, f"silver/score_bin_{name}")[1]) for name in names]
    if len(steps) and all(len(row) == len(first) for row in rows):
        labels = ["c = 0", "c = 1/3", "c = 2/3", "c = 1"]
        axes.stackplot(steps, *rows, labels=labels, colors=BIN_COLORS, linewidth=0)
    _line(axes, history, "silver/score_mean", "mean c", ORANGE)
    axes.set_ylim(0, 1)


def searches_panel(axes: Axes, history: History) -> None:
    """Valid searches a rollout."""
    axes.set_title("Searches per rollout")
    _line(axes, history, "rollout/searches", "train", BLUE)
    steps, values = series(history, "eval/searches")
    if len(steps):
        axes.plot(steps, values, color=ORANGE, marker="o", markersize=5, linewidth=1.6, label="held out")
    axes.set_ylim(bottom=0)


def penalty_panel(axes: Axes, history: History) -> None:
    """Penalised steps that are likely correct, softened queries, and groups without a silver document."""
    axes.set_title("Who is penalised")
    _line(axes, history, "advantage/penalised_likely_correct", "penalised queries likely correct", RED)
    _line(axes, history, "silver/softened_share", "softened queries", BLUE)
    _line(axes, history, "silver/empty_share", "groups without silver documents", MUTED)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1)


def time_panel(axes: Axes, history: History) -> None:
    """Seconds of a step by what they were spent on."""
    axes.set_title("Where a step's time goes (s)")
    timed = [row for row in history if has_any([row], [f"time/{part}_s" for part in TIME_PARTS])]
    steps = [row["step"] for row in timed]
    parts = [part for part in TIME_PARTS if has_any(timed, [f"time/{part}_s"])]
    if parts:
        rows = [[row.get(f"time/{part}_s", 0.0) for row in timed] for part in parts]
        colors = [TIME_PARTS[part] for part in parts]
        axes.stackplot(steps, *rows, labels=parts, colors=colors, linewidth=0, step="mid")
    axes.set_ylim(bottom=0)


PANELS: dict[str, tuple[Panel, Sequence[str]]] = {
    "reward": (reward_panel, ["reward/mean", "reward/f1", "eval/f1"]),
    "format": (format_panel, ["reward/format", "reward/em"]),
    "certainty": (certainty_panel, ["policy/entropy", "policy/ppl", "rollout/high_ppl_ratio"]),
    "neg_pos_ratio": (neg_pos_panel, ["advantage/neg_pos_ratio", "advantage/neg_pos_ratio_before"]),
    "silver": (silver_panel, ["silver/score_mean", "silver/score_bin_0"]),
    "searches": (searches_panel, ["rollout/searches", "eval/searches"]),
    "penalty": (penalty_panel, ["advantage/penalised_likely_correct", "silver/softened_share", "silver/empty_share"]),
    "time": (time_panel, [f"time/{part}_s" for part in TIME_PARTS]),
}


def _line(axes: Axes, history: History, metric: str, label: str, color: str) -> None:
    """The metric as a faint line and its running mean as a strong one."""
    steps, values = series(history, metric)
    if len(steps):
        smooth = running_mean(values)
        axes.plot(steps, values, color=color, alpha=0.22, linewidth=1)
        axes.plot(steps, smooth, color=color, linewidth=2, label=label, marker="o" if len(steps) == 1 else None)


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
            ncols=len(handles),
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
