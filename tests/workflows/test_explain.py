"""`calibadv explain` on a run folder with stored groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.tracking.groups import write_groups
from tests.explain.test_disagreement import told
from tests.explain.test_replay import stored
from workflows.command import run_command
from workflows.explain import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write_groups(tmp_path / "run" / "groups", stored(told()), limit_mb=1)
    return tmp_path / "run"


def test_a_question_is_shown_turn_by_turn_with_its_arithmetic(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--question", "test/q", "--method", "grpo"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    legend = "● silver: a correct rollout found it, gold: one of the question's gold passages"
    assert f"who? step 4, test/q golden: Ada {legend} rollout 1 reward 1.00 answer Ada" in said
    assert "calibadv +0.000 = -0.50 [reward - mean: 0.00 - 0.50] × 1.41" in said
    assert "0.00 [1 - c: 1 of 1 documents silver, by correct rollout 1]" in said
    assert "grpo -0.707" in said
    assert "● A gold ● B" in said
    assert "○ g gold" in said
    assert "○ x" in said


def test_without_a_question_methods_stand_side_by_side(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--disagree", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "5 searches method blamed of them all silver of them any silver N / P" in said
    assert "grpo 80% 50% 50% 2.50" in said
    assert "calibadv 40% 0% 0% 1.50" in said
    assert "precision 0.50 (0.50 to 0.50, of 2), recall 0.50" in said
    _, _, disputed = said.partition("disputed most: a search that ")
    assert "--step 4 --question test/q rollout 2, turn 1, c 1.00: " in disputed  # what shows it turn by turn
    assert "calibadv +0.00 " in disputed
    assert "grpo -0.71 " in disputed


def test_what_is_not_there_is_said_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: main([str(run), "--question", "test/z"])) == 2
    assert "has no stored group of the question 'test/z'; it has test/q" in capsys.readouterr().err
    assert run_command(lambda: main([str(run), "--step", "9"])) == 2
    assert "has no groups of step 9; it has 4" in capsys.readouterr().err
    assert run_command(lambda: main([str(run / "none")])) == 2
    assert "has no stored groups" in capsys.readouterr().err
