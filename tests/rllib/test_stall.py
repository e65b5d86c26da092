"""What a run that waits says, by a clock that is turned by hand."""

from __future__ import annotations

import logging
import time

import pytest

from calibadv.rllib.stall import StallWatch


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
