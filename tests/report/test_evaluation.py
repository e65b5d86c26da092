"""Before and after training: means, intervals over questions, and the change over the questions of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.report.evaluation import Row, evaluation_of
from calibadv.report.reading import read_run
from tests.report.made_up import history, prediction, write_run


def row(folder: Path, label: str) -> Row:
    return next(one for one in evaluation_of(read_run(folder)).rows if one.label == label)


def test_the_change_is_paired_over_the_questions_of_both(tmp_path: Path) -> None:
    before = [prediction(f"q{i}", f1) for i, f1 in enumerate([0.0, 1.0, 0.0, 1.0])]
    after = [prediction(f"q{i}", f1) for i, f1 in enumerate([0.5, 1.0, 0.5])]
    f1 = row(write_run(tmp_path / "a", history(3), first=before, answers=after), "F1")
    assert f1.before is not None
    assert f1.before.mean == pytest.approx(0.5)
    assert f1.before.low < f1.before.high
    assert f1.after is not None
    assert f1.after.mean == pytest.approx(2 / 3)
    assert f1.change is not None
    assert f1.change.mean == pytest.approx(1 / 3)  # of 0.5, 0 and 0.5
    assert 0 <= f1.change.low < f1.change.mean < f1.change.high <= 0.5


def test_a_run_that_kept_no_first_answers_has_the_mean_of_its_metrics_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", history(3), answers=[prediction("q0", 1.0), prediction("q1", 0.0)])
    f1 = row(run, "F1")
    assert f1.before is not None
    assert f1.before.mean == f1.before.low == f1.before.high == 0.2  # no more than the mean is known
    assert f1.change is None
    assert row(run, "cover-EM").before is None


def test_before_training_the_answers_at_hand_are_the_first_ones(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", history(0), answers=[prediction("q0", 1.0)])
    evaluation = evaluation_of(read_run(run))
    assert (evaluation.step, evaluation.questions_before, evaluation.questions) == (0, 1, 0)
    assert row(run, "F1").after is None


def test_parts_by_hops_have_both_sides_where_both_are_known(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a",
        history(3),
        first=[prediction("q0", 0.0, hops=1), prediction("q2", 1.0, hops=1)],  # q2 is not asked again
        answers=[prediction("q0", 1.0, hops=1), prediction("q1", 0.5, hops=2)],
    )
    parts = evaluation_of(read_run(run)).by_hops
    assert [(part.part, part.questions, part.before, part.after) for part in parts] == [
        ("1", 1, 0, 1),
        ("2", 1, None, 0.5),
    ]
