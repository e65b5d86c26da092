"""The scaling benchmark without a run: cases, medians, and what it keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling_cases import CASES, HEAD, RECIPE, Case, measured, rows, settings_of
from benchmarks.scaling_measure import learner_peaks, measure, resident_peak
from calibadv.config import load_config
from calibadv.memory.shape import model_shape

GIVEN = settings_of(Case(2, 1), steps=4, questions=16)
RESULT: dict[str, Any] = {
    "engines": 1,
    "learners": 1,
    "zero": 0,
    "staleness": 0,
    "tokens_per_s": 1000.0,
    "published_bytes": 8_000_000,
}
SECONDS = {"rollout_s": 2.0, "learn_s": 3.0, "sync_s": 0.5, "step_s": 5.5}


def line(step: int, seconds: float, tokens: float = 100.0) -> dict[str, float]:
    parts = {f"time/{part}_s": seconds / 2 for part in ("rollout", "learn", "sync")}
    return {"step": float(step), "time/step_s": seconds + 9.0, "time/eval_s": 9.0, "rollout/tokens": tokens, **parts}


def test_every_case_is_a_valid_run_of_two_updates_a_step() -> None:
    assert len({case.name for case in CASES}) == len(CASES) == 7
    for case in CASES:
        config = load_config(RECIPE, settings_of(case, steps=4, questions=16))
        assert (config.rollout.engines, config.learner.learners) == (case.engines, case.learners)
        assert (config.learner.zero, config.rollout.max_staleness) == (case.zero, case.staleness)
        assert (config.rollouts_per_step, config.updates_per_step, config.checkpoint.every) == (80, 2, 0)


@pytest.mark.parametrize(("steps", "questions"), [(1, 16), (4, 15), (4, 0)])
def test_a_measurement_that_says_nothing_is_refused(steps: int, questions: int) -> None:
    with pytest.raises(ValueError, match="expected two or more steps"):
        settings_of(CASES[0], steps=steps, questions=questions)


def test_medians_leave_out_the_first_step_and_the_time_of_evaluations() -> None:
    metrics = [{"step": 0.0, "eval/f1": 0.5}, line(1, 50.0), line(2, 4.0), line(3, 8.0), line(4, 5.0)]
    result = measured(Case(2, 1), GIVEN, metrics, [3, 7])
    assert (result["steps"], result["step_s"], result["learn_s"]) == (3, 5.0, 2.5)
    assert result["tokens_per_s"] == 80 * 100 / 5.0
    assert result["learner_peak_bytes"] == 7
    # What is published is fp32, as the recipe has it.
    assert result["published_bytes"] == 4 * model_shape(load_policy()).parameters


def load_policy() -> str:
    from calibadv.pocket import policy_path

    return str(policy_path())


def test_a_run_without_a_second_step_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="no step after the first"):
        measured(Case(2, 1), GIVEN, [line(1, 1.0)], [])


def test_rows_compare_with_the_first_case() -> None:
    first = RESULT | SECONDS | {"learner_peak_bytes": None}
    second = RESULT | SECONDS | {"step_s": 11.0, "engines": 2, "zero": 2, "learner_peak_bytes": 500_000_000}
    table = rows([first, second])
    assert table[0] == ["1", "1", "0", "2.00", "3.00", "0.50", "5.50", "1.00", "1,000", "1 x 8.0", ""]
    assert table[1] == ["2", "1, zero = 2", "0", "2.00", "3.00", "0.50", "11.00", "2.00", "1,000", "2 x 8.0", "500"]
    assert len(table[0]) == len(HEAD)


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    ran: list[str] = []

    def run(case: Case, given: Mapping[str, Any], *_: object) -> dict[str, Any]:
        if len(ran) == 1 and case.engines == 2:
            ran.append("failed")
            raise ValueError("it took too long")
        ran.append(case.name)
        return {"case": case.name, "settings": given}

    cases = (Case(1, 1), Case(2, 1))
    with pytest.raises(ValueError, match="too long"):
        measure(tmp_path, steps=4, questions=16, limit_s=1, cases=cases, run=run)
    results = measure(tmp_path, steps=4, questions=16, limit_s=1, cases=cases, run=run)
    assert ran == ["engines-1-learners-1", "failed", "engines-2-learners-1"]
    assert [result["case"] for result in results] == [case.name for case in cases]
    assert json.loads((tmp_path / "engines-2-learners-1.json").read_text())["machine"]["cores"] == os.cpu_count()
    # Other settings are another measurement.
    measure(tmp_path, steps=5, questions=16, limit_s=1, cases=cases[:1], run=run)
    assert ran[3:] == ["engines-1-learners-1"]


def test_a_resident_peak_is_read_in_bytes() -> None:
    assert resident_peak("Name:\tray\nVmPeak:\t  900 kB\nVmHWM:\t  700 kB\n") == 700 * 1024
    assert resident_peak("Name:\tray\nState:\tZ (zombie)\n") == 0


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux's /proc")
def test_peaks_are_those_of_learners_below_the_process_alone() -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    learner, other = subprocess.Popen([*sleeping, "ray::_WrappedExecutable.apply"]), subprocess.Popen(sleeping)
    try:
        with learner_peaks(os.getpid(), poll_s=0.05) as peaks:
            deadline = time.monotonic() + 300
            while not peaks and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        for process in (learner, other):
            process.kill()
            process.wait()
    assert list(peaks) == [learner.pid]
    assert peaks[learner.pid] > 2**20
