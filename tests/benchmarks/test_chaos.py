"""The plan of kills, what is counted, and what is killed, at a process that this test starts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import chaos, injection
from benchmarks.injection import Kill, Planned, Run, kill_all, plan_kills
from calibadv.config import ConfigError, load_config, to_toml
from tests.build import jsonl


@pytest.mark.parametrize(("steps", "each"), [(50, 2), (6, 1), (20, 6)])
def test_each_kind_is_killed_equally_often_and_once_in_every_part_of_the_run(steps: int, each: int) -> None:
    planned = plan_kills(steps, each, seed=7)
    assert sorted(one.kind for one in planned) == sorted([*injection.TITLES] * each)
    at = [one.step for one in planned]
    assert at == sorted(at)
    assert (at[0] >= 1, at[-1] <= steps - 2) == (True, True)
    assert planned == plan_kills(steps, each, seed=7)
    assert planned != plan_kills(steps, each, seed=8)


def test_a_run_that_is_too_short_for_its_kills_is_refused() -> None:
    with pytest.raises(ValueError, match="6 kills need a run of at least 8 steps, got 7: raise --steps"):
        plan_kills(7, 2, seed=0)


# A "run" of five steps, whose engine it starts again when it dies.
RUN = """
import json, subprocess, sys, time
engine = lambda: subprocess.Popen(["ray::MapWorker(MapBatches(RolloutWorker)).submit", "3600"], executable="/bin/sleep")
process = engine()
with open(sys.argv[1], "w") as file:
    for step in range(1, 6):
        time.sleep(0.4)
        if process.poll() is not None:
            process = engine()
        print(json.dumps({"step": step}), file=file, flush=True)
"""


def test_a_kill_is_made_and_its_cost_is_measured_and_nothing_stays(tmp_path: Path) -> None:
    process = psutil.Popen([sys.executable, "-c", RUN, str(tmp_path / "metrics.jsonl")], start_new_session=True)
    run = Run(process, tmp_path, time.time())
    try:
        (kill,) = kill_all(run, [Planned(2, "engine", share=0.1, draw=0.9)], usual_s=0.4)
        assert (kill.kind, kill.after_step >= 2) == ("engine", True)
        assert kill.recovery_s is not None
        assert not psutil.pid_exists(kill.pid) or psutil.Process(kill.pid).status() == psutil.STATUS_ZOMBIE
        assert process.wait(60) == 0  # its second engine has no parent now
    finally:
        run.end()
    assert len({one.pid for one in run.seen} - {process.pid}) == 2
    assert psutil.wait_procs([*run.seen, process], timeout=120)[1] == []


def test_a_run_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    process = psutil.Popen([sys.executable, "-c", ""], stdout=subprocess.DEVNULL)
    run = Run(process, tmp_path, time.time())
    assert list(kill_all(run, [Planned(1, "engine", 0.0, 0.0)], usual_s=1.0)) == []
    run.end()


def test_counts_are_sums_over_steps(tmp_path: Path) -> None:
    made = {"rollout/dropped_groups": 1, "rollout/infra_failed_count": 2, "learner/skipped_updates": 0}
    lines = [{"step": 0, "eval/f1": 0.1}, *({"step": step, "rollout/questions": 7, **made} for step in (1, 2))]
    jsonl(tmp_path / "metrics.jsonl", *lines)
    (tmp_path / "restarts.jsonl").write_text('{"why": "a learner was lost"}\n')
    assert chaos.counts(tmp_path) == {
        "steps": 2,
        "questions": 14,
        "dropped": 2,
        "infra_failed_rollouts": 4,
        "skipped_updates": 0,
        "restarts": 1,
    }


def test_a_kill_during_learning_shows_in_the_step_after_the_next(tmp_path: Path) -> None:
    times = enumerate([2.0, 2.0, 14.0, 20.0], start=1)
    jsonl(tmp_path / "metrics.jsonl", *({"step": step, "time/step_s": time_s} for step, time_s in times))
    assert chaos.slowest(tmp_path, Kill("engine", 1, "", after_step=1, at_s=0.0, recovery_s=0.8)) == 14.0
    assert chaos.slowest(tmp_path, Kill("engine", 1, "", after_step=4, at_s=0.0, recovery_s=None)) == 0


def test_another_run_is_no_comparison(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(to_toml(load_config(None, {"run.seed": seed})))
    chaos.check_same(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ConfigError, match=r"is not the run that .* would be unhurt: run.seed was 2, now 1"):
        chaos.check_same(tmp_path / "a", tmp_path / "c")


def test_a_run_without_anyone_to_kill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no one to kill"):
        chaos.main(["--folder", str(tmp_path / "x"), "--learner.learners", "0"])
    assert not (tmp_path / "x").exists()
