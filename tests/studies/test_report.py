"""Tables and figures of a study from its runs' folders: numbers by hand, states, and what figures show."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from matplotlib.figure import Figure

from calibadv.plots.style import ink_of
from calibadv.studies.curves import BY_FILE, draw_curve, mean_and_spread
from calibadv.studies.figures import draw_final_f1, draw_sweep, score_shares
from calibadv.studies.grid import Plan
from calibadv.studies.results import Spread, bootstrap_f1, failure_file, read_results
from calibadv.studies.tables import write_report
from calibadv.tracking.series import collapse_point
from tests.studies.plan import history, make_plan, study_file, write_run
from workflows import compare

FALLEN = [0.6] * 20 + [0.05] * 20
STEADY = [0.6] * 40


def filled(tmp_path: Path) -> Plan:
    """grpo: seeds done with F1 0.4 (collapsed) and 0.6; calibadv: one done with 0.7, one failed; half: waiting."""
    plan = make_plan(tmp_path)
    grpo0, grpo1, calibadv0, calibadv1, _ = plan.runs
    tokens = {"rollout__tokens_sampled": 100.0, "rollout__tokens_reused": 1e6}
    write_run(grpo0, history(FALLEN, **tokens), f1=0.4, answers={"a": 0.0, "b": 0.8})
    write_run(grpo1, history(STEADY, **tokens), f1=0.6, answers={"a": 0.4, "b": 0.8})
    write_run(calibadv0, history(STEADY), f1=0.7)
    write_run(calibadv1, history([0.5]))
    failure = failure_file(plan.folder, calibadv1)
    failure.parent.mkdir()
    failure.write_text('Traceback:\n  File "x.py"\nRayActorError: The actor died\n')
    return plan


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_mean_and_deviation_over_seeds_and_says_what_failed(tmp_path: Path) -> None:
    plan = filled(tmp_path)
    report = write_report(plan)
    lines = (plan.folder / "table.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## Methods", "## Ablation ladder", "## Sweep of λ", "## Failed",
    ]  # fmt: skip
    head, _, grpo, calibadv = lines[lines.index("## Methods") + 2 :][:4]
    row = dict(zip(cells_of(head), cells_of(grpo), strict=True))
    # F1 0.4 and 0.6: mean 0.5, unbiased deviation sqrt(2) / 10.
    assert (row["runs"], row["F1"], row["EM"]) == ("2", "50.0 ± 14.1", "25.0 ± 7.1")
    assert (row["collapse"], row["tokens sampled"], row["tokens reused"]) == ("21/16, none", "4000", "40.00 M")
    assert (row["searches"], row["time"]) == ("1.50 ± 0.00", "1.5 min")
    row = dict(zip(cells_of(head), cells_of(calibadv), strict=True))
    assert (row["runs"], row["F1"], row["95 %"], row["collapse"]) == ("1 of 2, 1 failed", "70.0", "–", "none")
    assert lines[-1] == "- calibadv-seed1: `RayActorError: The actor died`"
    assert report.failed == 1


def test_only_the_sweep_has_a_column_for_lambda(tmp_path: Path) -> None:
    plan = filled(tmp_path)
    write_report(plan)
    methods, sweep = (plan.folder / "table.md").read_text().split("## Sweep of λ")
    assert "| λ |" not in methods
    rows = [cells_of(line) for line in sweep.splitlines() if line.startswith("|")]
    assert rows[0][2] == "λ"
    assert [row[:3] for row in rows[2:]] == [
        ["grpo", "grpo", "–"], ["calibadv", "calibadv", "1"], ["calibadv-half", "calibadv", "0.5"],
    ]  # fmt: skip
    assert rows[-1][3:5] == ["0 of 1, 1 waiting", "–"]


def test_a_method_of_ones_own_is_a_row_like_any_other(tmp_path: Path) -> None:
    own = '[[cell]]\nname = "doubled"\nmethod = "calibadv.lab.controls:scaled"\nparams = { negative = 2.0 }\n'
    plan = make_plan(tmp_path, own)
    for run in plan.runs:
        write_run(run, history(STEADY), f1=0.6)
    assert {path.name for path in write_report(plan).figures} >= {"overview.png", "f1_final.png"}
    (row,) = [line for line in (plan.folder / "table.md").read_text().splitlines() if line.startswith("| doubled ")]
    assert cells_of(row)[:4] == ["doubled", "calibadv.lab.controls:scaled", "2", "60.0 ± 0.0"]


def test_the_csv_has_the_same_figures_unscaled(tmp_path: Path) -> None:
    plan = filled(tmp_path)
    write_report(plan)
    with (plan.folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["cell"]) for row in rows] == [
        ("table", "grpo"), ("table", "calibadv"), ("ladder", "calibadv"),
        ("lambda", "grpo"), ("lambda", "calibadv"), ("lambda", "calibadv-half"),
    ]  # fmt: skip
    assert (float(rows[0]["f1_mean"]), float(rows[0]["f1_std"])) == pytest.approx((0.5, 0.02**0.5))
    assert 0.2 <= float(rows[0]["f1_low"]) < 0.5 < float(rows[0]["f1_high"]) <= 0.8
    assert rows[1]["f1_std"] == rows[1]["f1_low"] == ""
    counts = ("runs", "done", "failed", "waiting", "collapsed")
    assert [[int(row[name]) for name in counts] for row in rows[:2]] == [[2, 2, 0, 0, 1], [2, 1, 1, 0, 0]]
    assert (float(rows[0]["collapse_step"]), rows[1]["collapse_step"]) == (21, "")


def test_every_step_of_every_run_is_in_one_table(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    write_report(plan)
    assert pd.read_parquet(plan.folder / "steps.parquet").columns.tolist() == ["cell", "seed", "step"]  # none has begun
    write_run(plan.runs[0], history([0.25, 0.5]), f1=0.5)
    write_run(plan.runs[1], history([0.75]), f1=0.5)
    write_report(plan)
    steps = pd.read_parquet(plan.folder / "steps.parquet")
    told = steps[["cell", "seed", "step", "reward/f1"]].dropna().to_numpy().tolist()
    name = plan.runs[0].cell.name
    assert told == [[name, 0, 1, 0.25], [name, 0, 2, 0.5], [name, 1, 1, 0.75]]


def test_f1_by_data_set_is_a_table_of_its_own_where_it_was_measured(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    ends = [{"eval/f1_nq": 0.5, "eval/f1_mean": 0.25}, {"eval/f1_nq": 0.7, "eval/f1_mean": 0.35}]
    for run, end in zip(plan.runs[:2], ends, strict=True):
        write_run(run, [*history([0.1]), {"step": 2.0, **end}], f1=0.5)
    write_report(plan)
    with (plan.folder / "table.csv").open() as file:
        found = [(row["f1_mean/nq"], row["f1_mean/mean"]) for row in csv.DictReader(file)]
    assert found[:2] == [("0.6", "0.3"), ("", "")]
    lines = (plan.folder / "table.md").read_text().splitlines()
    start = lines.index("F1 × 100 by data set:")
    assert [cells_of(line) for line in (lines[start + 2], lines[start + 4], lines[start + 5])] == [
        ["cell", "nq", "mean"], ["grpo", "60.0 ± 14.1", "30.0 ± 7.1"], ["calibadv", "–", "–"],
    ]  # fmt: skip


def test_the_interval_draws_questions_with_the_answers_of_all_seeds() -> None:
    assert bootstrap_f1([]) is None
    # Every question has the mean 0.5 over seeds: other questions would change nothing.
    assert bootstrap_f1([{"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0}]) == (0.5, 0.5)
    # 400 questions, half of them right: 0.5 ± 1.96 sqrt(0.25 / 400), however many seeds agree.
    answers = {str(i): float(i % 2) for i in range(400)}
    low, high = bootstrap_f1([answers] * 5) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.006)
    assert bootstrap_f1([answers] * 5) == (low, high)  # seeded


def test_a_spread_needs_two_seeds() -> None:
    assert Spread.of([]).text() == "–"
    assert Spread.of([0.5]).text(100) == "50.0"
    assert Spread.of([0.4, 0.6]).text(100) == "50.0 ± 14.1"


def test_a_collapse_is_told_by_its_training_step() -> None:
    before = {"step": 0.0, "eval/f1": 0.3}
    assert collapse_point([before, *history(FALLEN)]) == 21
    assert collapse_point([before, *history(STEADY)]) is None


def test_figures_are_written_of_what_was_measured_group_by_group(tmp_path: Path) -> None:
    plan = filled(tmp_path)
    figures = {path.relative_to(plan.folder / "plots").as_posix() for path in write_report(plan).figures}
    common = {"overview.png", "f1_train.png"}
    assert figures == (
        {f"table/{name}" for name in common | {"f1_final.png"}}
        | {f"ladder/{name}" for name in common | {"ladder.png"}}
        | {f"lambda/{name}" for name in common | {"f1_final.png", "sweep.png"}}
    )
    assert all((plan.folder / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    assert not list(plan.folder.rglob("*.tmp"))
    assert {path.parent.name for path in write_report(plan, ["ladder"]).figures} == {"ladder"}
    assert write_report(make_plan(tmp_path / "empty")).figures == ()


def test_a_curve_is_the_mean_over_seeds_at_the_steps_they_share() -> None:
    rows = [[{"step": s, "x": v} for s, v in seed] for seed in ([(1, 1.0), (2, 2.0), (3, 9.0)], [(1, 3.0), (2, 2.0)])]
    steps, mean, spread = mean_and_spread(rows, "x", smooth=False)
    assert (steps.tolist(), mean.tolist()) == ([1, 2], [2, 2])
    np.testing.assert_allclose(spread, [2**0.5, 0])
    assert mean_and_spread(rows[:1], "x", smooth=False)[2] is None
    assert mean_and_spread(rows, "y", smooth=False)[0].size == 0


def test_curves_and_bars_show_the_finished_runs(tmp_path: Path) -> None:
    plan = filled(tmp_path)
    results = read_results(plan)
    ink = ink_of([[result.cell.name for result in results]])
    axes = Figure().add_subplot()
    draw_curve(axes, results, BY_FILE["f1_train"], ink)
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    np.testing.assert_allclose(np.asarray(lines["calibadv"].get_ydata()), STEADY)  # without the seed that failed
    assert [line.get_xdata() for line in axes.get_lines() if line.get_marker() == "X"] == [[21]]
    axes = Figure().add_subplot()
    draw_final_f1(axes, results, ink, ladder=True)
    assert [text.get_text() for text in axes.texts] == ["50.0", "70.0  (+20.0)"]
    axes = Figure().add_subplot()
    draw_sweep(axes, results, ink)
    assert axes.get_legend_handles_labels()[1] == ["grpo", "calibadv"]
    assert axes.get_lines()[0].get_ydata() == pytest.approx([50, 50])  # no λ: a level


def test_a_cell_keeps_its_colour_and_groups_of_the_same_methods_look_alike() -> None:
    ink = ink_of([["grpo", "lld", "calibadv"], ["grpo", "prethink", "calibadv"], ["hot-grpo", "hot-lld"]])
    assert len({ink[cell] for cell in ("grpo", "prethink", "calibadv")}) == 3
    assert ink["prethink"] == ink["lld"]
    assert (ink["hot-grpo"], ink["hot-lld"]) == (ink["grpo"], ink["lld"])
    many = ink_of([[str(i) for i in range(25)]])
    assert len(set(many.values())) == 25


def test_score_shares_are_means_over_the_steps_that_had_queries(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    bins = ({"0": 0.5, "0.33": 0.5, "0.67": 0.0, "1": 0.0}, {"0": 0.0, "0.33": 0.0, "0.67": 0.5, "1": 0.5})
    rows = [{"step": float(i), **{f"silver/score_bin_{k}": v for k, v in b.items()}} for i, b in enumerate(bins)]
    write_run(plan.runs[0], [*rows, {"step": 3.0}], f1=0.5)
    grpo, calibadv, _ = read_results(plan)
    assert score_shares(grpo) == [0.25] * 4
    assert score_shares(calibadv) is None


def test_report_alone_rebuilds_everything_and_its_code_says_whether_a_run_failed(tmp_path: Path) -> None:
    plan = filled(tmp_path)
    assert compare.main([str(study_file(tmp_path)), "--report"]) == 1
    assert (plan.folder / "table.md").exists()
    failure_file(plan.folder, plan.runs[3]).unlink()
    assert compare.main([str(study_file(tmp_path)), "--report"]) == 0
    assert "1 of 2, 1 unfinished" in (plan.folder / "table.md").read_text()


def test_a_study_whose_runs_are_all_done_starts_nothing(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for run in plan.runs:
        write_run(run, history(STEADY), f1=0.5)
    assert compare.main([str(study_file(tmp_path))]) == 0
    assert not ray.is_initialized()
    assert (plan.folder / "plots" / "table" / "overview.png").exists()
    assert not (plan.folder / ".lock").exists()  # a study's first deed
