"""Recipes and studies that come with the project, from any working folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflows import compare, doctor, train
from workflows import evaluation_options as command
from workflows.shipped import recipe_file, study_file

ROOT = Path(__file__).parents[2]
POCKET = ROOT / "workflows" / "recipes" / "pocket.toml"


@pytest.mark.parametrize("text", ["workflows/recipes/pocket.toml", "pocket.toml", "pocket", str(POCKET)])
def test_a_recipe_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_file(text) == POCKET
    config = train.parse(["--config", text]).config
    assert config == train.parse([]).config == doctor.parse(["--config", text]).config


def test_a_file_of_ones_own_goes_before_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket.toml").write_text("[run]\nsteps = 3\n")
    assert train.parse(["--config", "pocket.toml"]).config.run.steps == 3
    assert recipe_file("none.toml") == Path("none.toml")


def test_studies_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert study_file("smoke") == study_file("workflows/studies/smoke.toml") == ROOT / "workflows/studies/smoke.toml"
    assert compare.study_file is study_file
    assert command.recipe_file is recipe_file


def test_the_command_runs_from_elsewhere(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "workflows" / "train.py"), "--dry-run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[learner]" in done.stdout
    assert list(tmp_path.iterdir()) == []
