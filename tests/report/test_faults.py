"""Faults of a run and their cost in time, told from its metrics."""

from __future__ import annotations

from pathlib import Path

from calibadv.json_lines import json_line
from calibadv.report.faults import faults_of, time_outside_steps
from calibadv.report.reading import read_run
from tests.report.made_up import history, write_run


def test_a_fault_costs_what_its_steps_took_beyond_the_median_of_the_others(tmp_path: Path) -> None:
    rows = history(5)
    rows[2] |= {"rollout/infra_failed_count": 3, "time/step_s": 25, "time/eval_s": 5}  # 20 s without its evaluation
    rows[4] |= {"rollout/engine_deaths": 2, "time/step_s": 14}
    rows[5] |= {"rollout/engine_deaths": 2}
    searches, deaths = faults_of(read_run(write_run(tmp_path / "a", rows)))
    assert (searches.kind, searches.count, searches.steps, searches.extra_s) == (
        "searches failed for good",
        3,
        (2,),
        10,
    )
    assert (deaths.kind, deaths.count, deaths.steps, deaths.extra_s) == ("engines died", 2, (4,), 4)


def test_deaths_are_counted_anew_by_the_process_that_resumes_a_run(tmp_path: Path) -> None:
    rows = history(7)
    for row, count in zip(rows[1:], (2, 2, 2, 0, 1, 2, 2), strict=True):
        row["rollout/engine_deaths"] = count
    (deaths,) = faults_of(read_run(write_run(tmp_path / "a", rows)))
    assert (deaths.count, deaths.steps) == (4, (1, 5, 6))


def test_a_calm_run_has_none_and_restarts_say_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", history(2))
    assert faults_of(read_run(run)) == []
    (run / "restarts.jsonl").write_text(json_line({"time": "2026-01-01 10:00:00", "why": "learner 1 is lost"}))
    (restart,) = faults_of(read_run(run))
    assert (restart.kind, restart.count, restart.cost) == ("restarts", 1, "2026-01-01 10:00:00 learner 1 is lost")


def test_time_outside_the_steps_is_known_of_a_finished_run(tmp_path: Path) -> None:
    assert time_outside_steps(read_run(write_run(tmp_path / "a", history(3)))) is None
    assert time_outside_steps(read_run(write_run(tmp_path / "b", history(3), summary={"wall_s": 42}))) == 12
