"""Figures of a run: what was measured is drawn, what was not leaves no figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from calibadv.tracking.plots import PANELS, overview, reward_panel, time_panel, write_plots
from calibadv.tracking.series import running_mean, series
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
    reward_panel(axes, history())
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    held_out = lines["F1 (held out)"]
    np.testing.assert_allclose(np.asarray(held_out.get_xdata()), [4, 8, 12])
    np.testing.assert_allclose(np.asarray(held_out.get_ydata()), [0.2, 0.4, 0.6])


def test_an_evaluation_before_the_first_step_takes_no_place_in_the_time_panel() -> None:
    axes = Figure().add_subplot()
    time_panel(axes, [{"step": 0.0, "eval/f1": 0.1}, *history(3)])
    assert axes.dataLim.x0 == 1


def test_every_panel_draws_data_and_the_overview_says_what_was_not_measured() -> None:
    full = overview(history())
    assert all(axes.has_data() for axes in full.axes)
    bare = overview([{"step": 1.0, "reward/mean": 0.5}])
    texts = [text.get_text() for axes in bare.axes for text in axes.texts]
    assert texts == ["not measured in this run"] * 5
    assert all(metrics for _, metrics in PANELS.values())


def test_a_series_leaves_gaps_out() -> None:
    steps, values = series([{"step": 1, "x": 5}, {"step": 2}, {"step": 3, "x": 7}], "x")
    assert (steps.tolist(), values.tolist()) == ([1, 3], [5, 7])
    assert series([], "x")[0].size == 0


def test_the_running_mean_is_centred_and_keeps_the_length() -> None:
    assert running_mean(np.asarray([0.0, 3.0, 6.0, 3.0])).tolist() == [1.5, 3.0, 4.0, 4.5]
