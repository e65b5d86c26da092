"""Figures of a run: what was measured is drawn, what was not leaves no figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibadv.plots.panels import PANELS, draw
from calibadv.plots.run import OVERVIEW, overview, write_plots
from calibadv.tracking.series import names, running_mean, series
from tests.tracking.fake_run import history


def test_every_measured_theme_gets_a_png_and_the_overview_comes_first(tmp_path: Path) -> None:
    written = write_plots(history(), tmp_path / "plots")
    assert [path.stem for path in written] == [
        "overview", "reward", "certainty", "neg_pos_ratio", "silver", "searches", "time",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert write_plots([], tmp_path / "none") == []


def test_the_reward_panel_draws_the_values_of_the_history() -> None:
    axes = Figure().add_subplot()
    draw(axes, PANELS["reward"], history())
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    held_out = lines["F1 (held out)"]
    np.testing.assert_allclose(np.asarray(held_out.get_xdata()), [4, 8, 12])
    np.testing.assert_allclose(np.asarray(held_out.get_ydata()), [0.2, 0.4, 0.6])


@pytest.mark.parametrize(
    ("rewards", "shown"), [((0.2, 0.4), (0, 1)), ((5, 8), (0, 8)), ((-2, 0.5), (-2, 0.5)), ((0.5, 1), (0, 1))]
)
def test_the_reward_panel_shows_rewards_of_any_scale(rewards: tuple[float, float], shown: tuple[float, float]) -> None:
    axes = Figure().add_subplot()
    draw(axes, PANELS["reward"], [{"step": float(step), "reward/mean": r} for step, r in enumerate(rewards, 1)])
    low, high = axes.get_ylim()
    assert low <= shown[0] < shown[1] <= high < 10
    assert (low, high) == (0, 1) or min(rewards) < 0 or max(rewards) > 1


def labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def test_the_reward_panel_marks_the_step_of_a_collapse() -> None:
    axes = Figure().add_subplot()
    fallen = [{"step": float(step), "reward/f1": 0.5 if step <= 14 else 0.0} for step in range(1, 21)]
    draw(axes, PANELS["reward"], fallen)
    assert "collapse at step 15" in labels(axes)
    healthy_axes = Figure().add_subplot()
    draw(healthy_axes, PANELS["reward"], fallen[:14])
    assert labels(healthy_axes) == ["F1 (train)"]


def test_a_perplexity_in_the_thousands_leaves_the_entropy_visible() -> None:
    scales = []
    for ppl in (1.2, 5000.0):
        axes = Figure().add_subplot()
        draw(axes, PANELS["certainty"], [{"step": float(s), "policy/ppl": ppl, "policy/entropy": 0.3} for s in (1, 2)])
        scales.append(axes.get_yscale())
    assert scales == ["linear", "log"]


def test_each_panel_draws_each_of_its_metrics_alone_and_all_together() -> None:
    for name, panel in PANELS.items():
        for shown in (*((metric,) for metric in panel.metrics), panel.metrics):
            if shown == ("silver/score_bin_0",):
                continue  # a distribution is drawn whole or not at all
            figure = Figure()
            draw(figure.add_subplot(), panel, [{"step": 1.0, **dict.fromkeys(shown, 0.5)}, {"step": 2.0}])
            assert any(axes.has_data() for axes in figure.axes), (name, shown)


def test_no_legend_squeezes_its_panel() -> None:
    sets = {f"eval/f1_{name}": 0.5 for name in ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique")}
    for name, panel in PANELS.items():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        draw(axes := figure.add_subplot(), panel, [{"step": 1.0, **dict.fromkeys(panel.metrics, 0.5), **sets}])
        figure.draw_without_rendering()
        assert axes.get_position().width > 0.7, name


def test_what_the_paper_measures_has_a_figure() -> None:
    drawn = {metric for panel in PANELS.values() for metric in panel.metrics}
    assert {
        "eval/f1_mean", "reward/f1", "rollout/high_ppl_ratio", "policy/entropy", "policy/token_probability",
        "policy/ppl", "advantage/neg_pos_ratio", "advantage/penalised_all_silver", "silver/score_mean",
        "silver/score_bin_0", "reward/format", "rollout/searches", "silver/empty_share", "silver/softened_share",
        "silver/size", "learner/clipped_share", "rollout/tokens_sampled",
    } <= drawn  # fmt: skip


def test_the_benchmarks_panel_has_a_line_for_each_data_set_and_the_mean_last() -> None:
    rows = [{"step": 0.0, "eval/f1": 0.3, "eval/f1_nq": 0.2, "eval/f1_mean": 0.3, "eval/f1_2wiki": 0.4}]
    axes = Figure().add_subplot()
    draw(axes, PANELS["benchmarks"], rows)
    assert labels(axes) == ["2wiki", "nq", "mean"]
    assert names(rows, "eval/f1_") == ["eval/f1_2wiki", "eval/f1_mean", "eval/f1_nq"]


def test_an_evaluation_before_the_first_step_takes_no_place_in_the_time_panel() -> None:
    axes = Figure().add_subplot()
    draw(axes, PANELS["time"], [{"step": 0.0, "eval/f1": 0.1}, *history(3)])
    assert axes.dataLim.x0 == 1


def test_every_panel_draws_data_and_the_overview_says_what_was_not_measured() -> None:
    full = overview(history())
    assert all(axes.has_data() for axes in full.axes)
    bare = overview([{"step": 1.0, "reward/mean": 0.5}])
    texts = [text.get_text() for axes in bare.axes for text in axes.texts]
    assert texts == ["not measured in this run"] * 5
    assert set(OVERVIEW) <= PANELS.keys()


def test_a_series_leaves_gaps_out() -> None:
    steps, values = series([{"step": 1, "x": 5}, {"step": 2}, {"step": 3, "x": 7}], "x")
    assert (steps.tolist(), values.tolist()) == ([1, 3], [5, 7])
    assert series([], "x")[0].size == 0


def test_the_running_mean_is_centred_and_keeps_the_length() -> None:
    assert running_mean(np.asarray([0.0, 3.0, 6.0, 3.0])).tolist() == [1.5, 3.0, 4.0, 4.5]
