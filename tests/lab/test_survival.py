"""Survival curves and the log-rank test by hand, and what a study's report says of a baseline."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibadv.lab.contrasts import COMPARED, against
from calibadv.lab.figures import draw_survival
from calibadv.lab.study import load_study
from calibadv.lab.survival import at_best, log_rank, survival

NEVER = float("nan")


def figures(**cells: list[tuple[float, float]]) -> pd.DataFrame:
    """Rows of (steps, step of collapse), a seed each."""
    return pd.DataFrame(
        [
            {"cell": cell, "seed": seed, "steps": steps, "collapsed_at": at, "garbled_at": NEVER}
            | dict.fromkeys(COMPARED, 0.1 * seed)
            for cell, runs in cells.items()
            for seed, (steps, at) in enumerate(runs)
        ]
    )


def test_a_run_that_only_ended_counts_as_long_as_it_was_watched() -> None:
    steps, share = survival(figures(a=[(9, 2.0), (3, NEVER), (9, 4.0), (5, NEVER)]), "collapsed_at")
    # At 2 one of four falls; at 4 one of the two that are still watched: 3/4, then 3/4 x 1/2.
    lasted = dict(zip(steps.tolist(), share.tolist(), strict=True))
    assert (lasted[0.0], lasted[2.0], lasted[4.0]) == (1.0, pytest.approx(3 / 4), pytest.approx(3 / 8))


def test_without_an_event_all_runs_last() -> None:
    _, share = survival(figures(a=[(9, NEVER), (9, NEVER)]), "collapsed_at")
    assert share.tolist() == [1.0, 1.0]


def test_the_log_rank_test_by_hand() -> None:
    runs = figures(a=[(3, 1.0), (3, 2.0)], b=[(3, NEVER), (3, NEVER)])
    # At 1: four watched, two of a: expected 1/2, variance 1/4. At 2: three, one of a: 1/3 and 2/9.
    z = (2 - 1 / 2 - 1 / 3) / math.sqrt(1 / 4 + 2 / 9)
    assert log_rank(runs, "b", "a", "collapsed_at") == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert np.isnan(log_rank(runs, "b", "a", "garbled_at"))


def test_at_best_the_runs_that_are_left_last_as_long_as_the_baseline_s_longest() -> None:
    baseline, begun = [(9, 1.0), (9, 2.0), (9, 3.0)], [(9, 2.0)]
    runs = figures(base=baseline, a=begun)
    lasting = figures(base=baseline, a=[*begun, (9, NEVER), (9, NEVER)])
    expected = log_rank(lasting, "a", "base", "collapsed_at")
    assert at_best(runs, "a", "base", "collapsed_at") == pytest.approx(expected)
    assert expected < log_rank(runs, "a", "base", "collapsed_at")
    assert at_best(lasting, "a", "base", "collapsed_at") == pytest.approx(expected)  # none is left
    assert np.isnan(at_best(runs, "a", "base", "garbled_at"))  # the baseline never garbles: nobody lasts longer


def test_a_cell_is_held_against_the_baseline_s_seeds_alone() -> None:
    runs = figures(base=[(9, 3.0)] * 2, a=[(9, NEVER)] * 3)
    runs.loc[runs["cell"] == "a", "f1"] += [0.2, 0.4, 5.0]
    table = against(runs, "base")
    assert table.index.tolist() == ["a"]
    assert table.loc["a", "seeds"] == 2
    # A paired t of 0.3 over 0.1 with one degree of freedom: p = 1 - 2 / pi * atan(3).
    assert table.loc["a", "f1"] == "+0.3 [+0.2, +0.4], p 0.2"
    assert table.loc["a", "p of collapse"] < 0.1


def test_the_picture_has_a_panel_an_event(tmp_path: Path) -> None:
    draw_survival(figures(a=[(9, 2.0)], b=[(9, NEVER)]), tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_a_baseline_that_is_no_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('name = "s"\nseeds = [0]\nbaseline = "GRPO"\n[[cell]]\nname = "other"\n', "utf-8")
    with pytest.raises(ValueError, match="baseline = 'GRPO' is no cell; cells: other"):
        load_study(path)
