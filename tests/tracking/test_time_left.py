"""The time that a run has left, by hand."""

from __future__ import annotations

import pytest

from calibadv.tracking.time_left import TimeLeft


def test_it_is_known_from_the_first_step_on_with_evaluations_counted() -> None:
    left = TimeLeft(10, {0: None, 4: 100, 8: 100, 10: None})
    left.evaluated(500, 50.0)  # 0.1 s a question
    assert left.seconds_from(0) is None
    left.stepped(30.0)
    # 9 steps, the evaluations of versions 4 and 8 with 100 questions each, and the last one with all 500
    assert left.seconds_from(1) == pytest.approx(9 * 30 + 700 * 0.1)


def test_an_evaluation_that_was_made_does_not_count_and_a_slower_one_does() -> None:
    left = TimeLeft(10, {0: None, 4: 100, 10: None})
    left.evaluated(500, 50.0)
    for seconds in (100.0, 30.0, 30.0, 30.0, 30.0, 30.0):  # the first of six is forgotten
        left.stepped(seconds)
    left.evaluated(100, 20.0)
    assert left.seconds_from(4) == pytest.approx(6 * 30 + 500 * 0.2)


def test_nothing_is_left_after_the_last_step() -> None:
    left = TimeLeft(2, {0: None, 2: None})
    left.evaluated(8, 1.0)
    left.stepped(3.0)
    assert left.seconds_from(2) == 0
