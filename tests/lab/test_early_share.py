"""Early shares of signal beside what the same runs came to: joined by settings, whatever their length."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from calibadv.lab.early_share import GRPO_ON_POLICY, SHARE, area, area_for_collapse, by_cell, early_shares
from calibadv.lab.results import write_store
from calibadv.lab.settings import LabRun


def rows(cell: str, run: LabRun, rewards: list[float], shares: list[float] | None = None) -> pd.DataFrame:
    table = pd.DataFrame({"cell": cell, "seed": run.seed, "settings": run.model_dump_json()}, index=range(len(rewards)))
    figures = ("reward/format", "policy/entropy", "policy/ppl", "policy/tail_mass", "language/legal", "eval/f1")
    table = table.assign(step=range(1, len(rewards) + 1), **{"reward/mean": rewards, "reward/f1": rewards})
    table = table.assign(**dict.fromkeys((*figures, "language/garbled", "advantage/neg_pos_ratio"), 0.1))
    return table if shares is None else table.assign(**{SHARE: shares})


def test_a_short_run_is_told_by_what_the_longest_equal_one_came_to(tmp_path: Path) -> None:
    falls, lasts = LabRun(lr=1e-3, steps=60), LabRun(lr=1e-4, steps=60)
    fallen = [0.6] * 30 + [0.0] * 30
    write_store(pd.concat([rows("a", falls, fallen), rows("b", lasts, [0.6] * 60)]), tmp_path / "long.parquet")
    write_store(rows("early", falls.model_copy(update={"steps": 20}), [0.6] * 20), tmp_path / "other.parquet")
    shorter = {"steps": 3, "evaluation_questions": 1}
    short = [rows("fast", falls.model_copy(update=shorter), [0.6] * 3, [-0.03, -0.01, -0.02])]
    short += [rows("slow", lasts.model_copy(update=shorter), [0.6] * 3, [math.nan, 0.01, 0.03])]
    write_store(pd.concat(short), tmp_path / "signal.parquet")
    runs = early_shares(tmp_path / "signal.parquet", [tmp_path / "long.parquet", tmp_path / "other.parquet"])
    assert runs["share"].tolist() == pytest.approx([-0.02, 0.02])
    assert runs["t"].tolist() == pytest.approx([-0.02 / (0.01 / 3**0.5), 2.0])  # deviations 0.01, and 0.02 / sqrt 2
    assert runs["collapsed_at"].notna().tolist() == [True, False]
    table = by_cell(runs)
    assert table.index.tolist() == ["fast", "slow"]
    assert table["collapse"].tolist() == [1, 0]
    assert table["t below -3"].tolist() == [1, 0]


def test_the_area_counts_pairs() -> None:
    assert area([1, 2], [3, 4]) == 1
    assert area([1, 4], [2, 3]) == 0.5
    assert area([1], [1]) == 0.5
    assert math.isnan(area([], [1]))


def test_the_area_is_of_grpo_on_policy_and_without_the_seed_that_had_been_looked_at() -> None:
    cell, nan = GRPO_ON_POLICY[0], math.nan
    rows = [(cell, 1, -2.0, 30.0), (cell, 2, 1.0, nan), (cell, 3, -3.0, nan)]
    rows += [(cell, 0, 5.0, 30.0), ("negatives x 2, top_p 0.95", 1, 9.0, 30.0)]  # neither counts
    assert area_for_collapse(pd.DataFrame(rows, columns=["cell", "seed", "t", "collapsed_at"])) == 0.5
