"""What a run that waits says, by a clock that is turned by hand."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from calibadv.checkpoints.folders import Draft
from calibadv.rllib.algorithm import CalibAdvAlgorithm
from calibadv.rllib.stall import StallWatch
from calibadv.views.summary import Activity


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock, caplog: pytest.LogCaptureFixture) -> StallWatch:
    caplog.set_level(logging.WARNING)
    return StallWatch(120.0, clock=clock, thread=False)


def test_a_wait_is_told_after_its_time_and_each_time_again(
    watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    done = 3
    with watch.waiting("the rollouts of step 7", lambda: f"{done} of 8 questions are in"):
        for _ in range(36):  # 360 s, looked at every 10 s
            clock.now_s += 10
            done += clock.now_s == 1300
            watch.check()
    clock.now_s += 1000
    watch.check()
    assert caplog.messages == [
        "for 120 s the run has waited for the rollouts of step 7: 3 of 8 questions are in",
        "for 240 s the run has waited for the rollouts of step 7: 3 of 8 questions are in",
        "for 360 s the run has waited for the rollouts of step 7: 4 of 8 questions are in",
    ]


def test_waits_that_end_in_time_are_not_told(watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for step in range(5):
        with watch.waiting(f"step {step}"):
            clock.now_s += 119
            watch.check()
    assert caplog.messages == []


def test_the_innermost_wait_is_told(watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with watch.waiting("the step"), watch.waiting("the publication of version 3"):
        clock.now_s += 130
        watch.check()
    assert caplog.messages == ["for 130 s the run has waited for the publication of version 3"]


def test_a_detail_that_fails_is_said_and_not_raised(
    watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def hangs() -> str:
        raise TimeoutError

    with watch.waiting("the rollouts", hangs):
        clock.now_s += 130
        watch.check()
    assert caplog.messages == ["for 130 s the run has waited for the rollouts (no more can be found out: TimeoutError)"]


def test_an_error_in_the_body_ends_the_wait(watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError), watch.waiting("what fails"):
        raise KeyError
    clock.now_s += 1000
    watch.check()
    assert caplog.messages == []


def test_the_thread_looks_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with StallWatch(0.02).waiting("the end of a test"):
        while not caplog.messages:
            time.sleep(0.005)
    assert "waited for the end of a test" in caplog.messages[0]


def test_a_wait_that_moves_is_no_stall_however_long_it_lasts(
    watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    turns = 0
    with watch.waiting("the rollouts of step 7", lambda: "3 of 8 questions are in", lambda: f"{turns} turns"):
        for _ in range(100):  # 1,000 s, something moves every 100 s
            clock.now_s += 10
            turns += clock.now_s % 100 == 0
            watch.check()
        assert caplog.messages == []
        for _ in range(12):
            clock.now_s += 10
            watch.check()
    assert caplog.messages == [
        "for 1120 s the run has waited for the rollouts of step 7, and nothing has moved for 120 s: "
        "3 of 8 questions are in"
    ]


def test_a_start_is_waited_for_with_patience(watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with watch.waiting("engines and learners to start", patience=5):
        for _ in range(59):
            clock.now_s += 10
            watch.check()
        assert caplog.messages == []
        clock.now_s += 10
        watch.check()
    assert caplog.messages == ["for 600 s the run has waited for engines and learners to start"]


def test_a_model_that_is_written_is_waited_for_with_patience(
    watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    class Slow:
        def call_all(self, _: object) -> list[object]:
            clock.now_s += 500
            watch.check()
            return []

    algorithm = object.__new__(CalibAdvAlgorithm)
    algorithm.stall, algorithm.learner_group = watch, Slow()
    algorithm.save_model(tmp_path)
    assert algorithm.save_state(Draft(str(tmp_path), "step-000001"), model=True) == {}
    assert caplog.text == ""


def test_patience_is_asked_and_ends_where_nobody_can_start(
    watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [5.0, 5.0, 1.0]
    with watch.waiting("engines and learners to start", patience=lambda: answers.pop(0)):
        for _ in range(14):  # asked at 120, 130 and 140 s
            clock.now_s += 10
            watch.check()
    assert caplog.messages == ["for 140 s the run has waited for engines and learners to start"]


def test_progress_that_cannot_be_asked_counts_as_nothing_moved(
    watch: StallWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def hangs() -> str:
        raise TimeoutError

    with watch.waiting("the rollouts", progress=hangs):
        clock.now_s += 130
        watch.check()
    assert caplog.messages == ["for 130 s the run has waited for the rollouts"]


def test_what_the_run_waits_for_can_be_asked_at_any_moment(watch: StallWatch, clock: Clock) -> None:
    assert watch.now() is None
    with watch.waiting("the learners' update of step 3", progress=lambda: "4 of 40 micro-batches"):
        assert watch.now() == Activity("the learners' update of step 3", 0.0, "")
        clock.now_s += 7
        watch.check()
        assert watch.now() == Activity("the learners' update of step 3", 7.0, "4 of 40 micro-batches")
    assert watch.now() is None
