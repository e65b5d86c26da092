"""Runs as a table: figures by hand, contrasts seed by seed, and that what is stored is not made again."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from calibadv.lab import results
from calibadv.lab.contrasts import against, contrast
from calibadv.lab.figures import draw_cells, draw_curves
from calibadv.lab.report import write_report
from calibadv.lab.results import (
    cell_table,
    garbled_at,
    is_stored,
    markdown,
    read_store,
    run_figures,
    with_shared,
    write_store,
)
from calibadv.lab.settings import LabRun
from calibadv.lab.study import Planned, Study
from workflows import lab


def rows(
    cell: str, seed: int, f1: list[float], tail: float = 0.01, garbled: float = 0.0, questions: int = 12
) -> pd.DataFrame:
    steps = len(f1)
    return pd.DataFrame(
        {
            "cell": cell,
            "seed": seed,
            "settings": LabRun(seed=seed, questions=questions).model_dump_json(),
            "step": np.arange(1, steps + 1),
            "reward/mean": f1,
            "reward/format": 1.0,
            "policy/entropy": 0.5,
            "policy/tail_mass": tail,
            "policy/ppl": 2.0,
            "language/garbled": garbled,
            "language/legal": 1.0,
            "advantage/neg_pos_ratio": 1.5,
            "length/wrong_over_right": 2.0,
            "eval/f1": [float("nan")] * (steps - 1) + [f1[-1]],
        }
    )


def test_a_run_s_end_is_its_last_twenty_steps_and_tail_mass_is_geometric() -> None:
    run = rows("a", 0, [0.0] * 20 + [0.5] * 10 + [0.7] * 10)
    run.loc[run["step"] > 30, "policy/tail_mass"] = 0.0001
    (figures,) = run_figures(run).to_dict("records")
    assert figures["f1"] == pytest.approx(0.6)
    assert figures["log_tail_mass"] == pytest.approx(np.log(0.001), abs=1e-6)
    assert figures["held_out_f1"] == pytest.approx(0.7)
    assert figures["steps"] == 40
    assert np.isnan(figures["collapsed_at"])


@pytest.mark.parametrize(("questions", "steps"), [(12, 20), (48, 5), (192, 1), (1000, 1)])
def test_a_run_s_end_is_as_many_rollouts_whatever_a_step_has(questions: int, steps: int) -> None:
    (figures,) = run_figures(rows("a", 0, [0.0] * 20 + [0.6] * steps, questions=questions)).to_dict("records")
    assert figures["f1"] == pytest.approx(0.6)


def test_a_fall_that_lasts_is_a_collapse_at_its_step() -> None:
    (figures,) = run_figures(rows("a", 0, [0.6] * 30 + [0.0] * 20)).to_dict("records")
    assert figures["collapsed_at"] == 31


def test_garbling_starts_where_ten_steps_average_a_half() -> None:
    assert garbled_at(np.array([0.0] * 10 + [1.0] * 10)) == 6  # steps 6 to 15: five of ten
    assert np.isnan(garbled_at(np.array([0.4] * 30)))
    assert np.isnan(garbled_at(np.ones(9)))


def test_contrasts_are_paired_by_seed() -> None:
    frame = pd.DataFrame({"cell": ["a", "a", "b", "b", "a"], "seed": [0, 1, 0, 1, 2], "f1": [0.5, 0.9, 0.4, 0.8, 9.0]})
    difference = contrast(frame, "f1", {"a": 1, "b": -1})
    assert (difference.mean, difference.seeds) == (pytest.approx(0.1), 2)  # seed 2 has no partner
    assert difference.low == pytest.approx(difference.high) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no run of cell 'c'"):
        contrast(frame, "f1", {"a": 1, "c": -1})


def test_one_seed_tells_no_interval_and_a_few_a_p_of_student_s() -> None:
    frame = pd.DataFrame({"cell": ["a", "b", "a", "b"], "seed": [0, 0, 1, 1], "f1": [0.5, 0.4, 0.9, 0.6]})
    assert str(contrast(frame[:2], "f1", {"a": 1, "b": -1})) == "+0.1 (one seed)"
    both = contrast(frame, "f1", {"a": 1, "b": -1})  # 0.1 and 0.3: t = 2 at one degree of freedom
    assert both.p == pytest.approx(1 - 2 * np.arctan(2) / np.pi)
    assert str(both) == "+0.2 [+0.1, +0.3], p 0.3"


def test_a_run_without_reward_at_its_end_has_no_held_out_f1_of_before() -> None:
    dead = [0.6] * 100 + [0.0] * 15  # of 200 steps; evaluated while it was well
    early = rows("a", 1, dead).assign(**{"eval/f1": [float("nan")] * 99 + [0.5] + [float("nan")] * 15})
    never = rows("a", 2, dead).assign(**{"eval/f1": float("nan")})
    whole = [rows(cell, seed, [0.5] * 200) for cell in ("a", "b") for seed in ((0,) if cell == "a" else (0, 1, 2))]
    figures = run_figures(pd.concat([early, never, *whole]))
    assert figures.set_index(["cell", "seed"]).loc["a", "held_out_f1"].tolist() == [0.5, 0.0, 0.0]
    # three pairs, differences 0, -0.5 and -0.5
    assert against(figures, "b").loc["a", "held_out_f1"].startswith("-0.333 [-0.5, +0]")


def test_a_report_is_of_the_runs_that_the_study_plans_now(tmp_path: Path) -> None:
    study = Study("x", (Planned("a", LabRun(seed=0)), Planned("a", LabRun(seed=1, lr=1.0))))
    table = pd.concat([rows("a", 0, [0.5] * 3), rows("a", 1, [0.9] * 3), rows("gone", 0, [0.9] * 3)])
    write_store(table, tmp_path / "x.parquet")
    report = write_report(study, tmp_path / "runs", tmp_path)
    assert [line.split(" | ")[:2] for line in report.splitlines()[2:]] == [["| a", "1"]]
    assert len(read_store(tmp_path / "x.parquet")) == 9  # what was made stays


def test_the_table_of_cells_counts_what_fell_and_is_markdown() -> None:
    store = pd.concat([rows("a", 0, [0.6] * 30 + [0.0] * 20), rows("a", 1, [0.6] * 50), rows("b", 0, [0.2] * 50)])
    table = cell_table(run_figures(store))
    assert table.loc["a", "runs"] == 2
    assert table.loc["a", "collapsed runs"] == 1
    assert table.loc["b", "f1"] == pytest.approx(0.2)
    text = markdown(table)
    assert text.splitlines()[0].startswith("| cell | runs | f1 | f1 ± |")
    assert len(text.splitlines()) == 4
    assert text.splitlines()[3].startswith("| b | 1 | 0.2 | – |")  # one run has no deviation


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    store = pd.concat([rows("a", 0, [0.6] * 30), rows("a", 1, [0.5] * 20)])
    draw_curves(store, run_figures(store), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_what_the_table_holds_is_not_made_again(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    tiny = "steps = 2\nquestions = 1\nsamples = 2\nupdates = 1\nevaluation_questions = 1"
    study.write_text(f"name = 'x'\nseeds = [0]\n[run]\n{tiny}\n[[cell]]\nname = 'a'\n")
    where = ["--folder", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--jobs", "1"]
    assert lab.main([str(study), *where]) == 0
    store = read_store(tmp_path / "results" / "x.parquet")
    assert store[["cell", "seed", "step"]].to_numpy().tolist() == [["a", 0, 1], ["a", 0, 2]]
    planned = Planned("a", LabRun.model_validate_json(store["settings"][0]))
    assert is_stored(store, planned)
    assert not is_stored(store, Planned("a", planned.run.model_copy(update={"lr": 1.0})))
    done = tmp_path / "runs" / "x" / "a-s0" / "done.json"
    done.unlink()
    assert lab.main([str(study), *where]) == 0
    assert not done.exists()  # the run was not made again


def test_a_run_of_other_settings_takes_the_stored_one_s_place(tmp_path: Path) -> None:
    planned = Planned("a", LabRun(steps=1))
    folder = tmp_path / planned.folder
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward/mean": 0.25}) + "\n")
    (folder / "done.json").write_text("{}")
    old = rows("a", 0, [0.5] * 3)
    other = rows("b", 0, [0.5] * 3)
    store = results.with_finished(pd.concat([old, other]), Study("x", (planned,)), tmp_path)
    assert store.groupby("cell").size().to_dict() == {"a": 1, "b": 3}
    assert is_stored(store, planned)


def test_a_run_that_another_study_has_made_is_taken_from_its_table(tmp_path: Path) -> None:
    other = pd.concat([rows("theirs", 0, [0.5] * 3), rows("theirs", 1, [0.7] * 3)])
    write_store(other, tmp_path / "other.parquet")
    study = Study("mine", (Planned("ours", LabRun(seed=1)), Planned("ours", LabRun(seed=2))))
    found = with_shared(read_store(tmp_path / "mine.parquet"), study, [tmp_path / "other.parquet"])
    assert found[["cell", "seed"]].drop_duplicates().to_numpy().tolist() == [["ours", 1]]
    assert found["reward/mean"].tolist() == pytest.approx([0.7] * 3)
    assert [is_stored(found, planned) for planned in study.runs] == [True, False]
    assert with_shared(found, study, [tmp_path / "other.parquet"]).equals(found)


def test_of_many_cells_each_run_is_a_dot_and_collapsed_ones_are_hollow(tmp_path: Path) -> None:
    figures = run_figures(pd.concat([rows("a", 0, [0.6] * 40), rows("b", 0, [0.6] * 20 + [0.0] * 20)]))
    with patch.object(Axes, "scatter", autospec=True, side_effect=Axes.scatter) as scatter:
        draw_cells(figures, tmp_path / "x.png")
    (sound, hollow, means) = (call.args for call in scatter.call_args_list)
    assert [figures.loc[one[1].index, "cell"].tolist() for one in (sound, hollow)] == [["a"], ["b"]]
    assert list(means[1]) == sorted(figures["held_out_f1"])
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
