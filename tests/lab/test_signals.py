"""The search for a signal that comes before: what counts as in time, as wrong, and as a run not seen before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibadv.lab.results import write_store
from calibadv.lab.settings import LabRun
from calibadv.lab.signals import Course, courses, first_above, score, signal_table


def run(seed: int, values: Sequence[float], at: float = math.nan, other: float = math.nan) -> Course:
    return Course({"policy/x": np.array(values, float)}, seed, {"collapsed_at": at, "garbled_at": other})


def test_a_score_is_of_ten_measured_steps() -> None:
    rising_T = np.arange(1.0, 13.0)  # means 5.5, 6.5, 7.5 from the tenth step on
    assert score(rising_T, "{}").tolist()[9:] == [5.5, 6.5, 7.5]
    assert np.isnan(score(rising_T, "{}")[:9]).all()
    assert score(rising_T, "{} over its first").tolist()[9:] == pytest.approx([1, 6.5 / 5.5, 7.5 / 5.5])
    falling_T = rising_T[::-1].copy()
    assert score(falling_T, "{} over its most").tolist()[9:] == pytest.approx([1, 6.5 / 7.5, 5.5 / 7.5])
    assert score(falling_T, "{} over its least").tolist()[9:] == [1, 1, 1]
    late_T = np.concatenate([np.full(5, math.nan), rising_T])  # not measured at first
    assert np.isnan(score(late_T, "{}")[:14]).all()
    assert score(late_T, "{}")[14] == 5.5
    assert np.isnan(score(np.zeros(12), "{} over its first")).all()  # nothing is a multiple of 0
    assert np.isnan(score(np.ones(9), "{}")).all()


def test_an_alarm_is_the_first_step_above() -> None:
    assert first_above(np.array([math.nan, 1.0, 3.0, 2.5]), 2.0) == 3
    assert math.isnan(first_above(np.array([math.nan, 1.0]), 2.0))


def test_bounds_are_of_even_seeds_and_what_they_are_worth_of_odd_ones() -> None:
    calm, rising = [1.0] * 30, [1.0] * 10 + [5.0] * 20  # its mean is 1.4 after step 11, 5 from step 20 on
    runs = [run(0, [1.2] * 30), run(2, calm), run(1, calm), run(5, rising)]  # seed 5 is sound and named wrongly
    runs += [run(3, rising, at=25), run(7, rising, at=11), run(9, calm, at=20)]
    runs += [run(4, rising, at=25), run(11, rising, other=5)]  # an even seed, and another event: neither counts
    table = signal_table(runs, "collapsed_at")
    row = table.loc["policy/x above 1.2"]
    assert row.to_dict() == {"in time": 1, "named": 2, "of": 3, "wrongly": 1, "of sound": 2, "lead": 7.0}  # 14 and 0
    assert not any(name.startswith("policy/x below") for name in table.index)  # names none
    assert table.index[0].startswith("policy/x")


def test_a_run_of_two_tables_counts_once_and_only_what_training_has(tmp_path: Path) -> None:
    settings = LabRun(steps=3).model_dump_json()
    columns = {
        "reward/mean": 0.5,
        "policy/entropy": 1.0,
        "policy/ppl": 2.0,
        "language/garbled": 0.0,
        "policy/tail_mass": 0.1,
    }
    columns |= dict.fromkeys(("reward/format", "language/legal", "eval/f1", "advantage/neg_pos_ratio"), 0.5)
    table = pd.DataFrame({"cell": "a", "seed": 3, "settings": settings, "step": [1, 2, 3], **columns})
    for name in ("one", "two"):
        write_store(table, tmp_path / f"{name}.parquet")
    (found,) = courses(sorted(tmp_path.glob("*.parquet")))
    assert found.seed == 3
    assert found.sound
    assert {"reward/mean", "policy/entropy"} <= found.metrics.keys()
    assert not {"language/garbled", "policy/tail_mass", "eval/f1"} & found.metrics.keys()
    assert found.metrics["policy/ppl"].tolist() == [2, 2, 2]
