"""`train.py --resume` up to the point where anything would be started."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from calibadv.config import Config, load_config, to_toml
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.training.parts import Parts
from calibadv.training.sentinel import Collapsed
from calibadv.training.signals import Preempted
from tests.build import overrides_of
from workflows import one_run, train
from workflows.command import run_command


def run_in(folder: Path, *overrides: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(load_config(train.RECIPES / "pocket.toml", overrides_of(*overrides))))
    return folder


def test_a_run_is_named_by_its_folder_or_by_its_name_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in(tmp_path / "runs" / "mine", "--run.seed=7")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "runs/mine", str(tmp_path / "runs" / "mine")):
        config = train.parse(["--resume", name, "--rollout.engines", "3"]).config
        assert (config.run.seed, config.rollout.engines) == (7, 3)
        assert config.run.folder / config.run_name == tmp_path / "runs" / "mine"


def test_a_run_that_was_moved_goes_on_where_it_is_now(tmp_path: Path) -> None:
    run_in(tmp_path / "moved", "--run.name=before", "--run.folder=/elsewhere")
    config = train.parse(["--resume", str(tmp_path / "moved")]).config
    assert config.run.folder / config.run_name == tmp_path / "moved"


def test_alone_it_means_the_run_of_this_command() -> None:
    asked: list[tuple[int, bool]] = []

    def ask(config: Config, *, resume: bool, **_: Any) -> int:
        asked.append((config.run.seed, resume))
        return 0

    assert train.main(["--run.seed", "4", "--resume"], train=ask) == 0
    assert train.main(["--resume", "--run.seed", "5"], train=ask) == 0
    assert train.main(["--run.seed", "6"], train=ask) == 0
    assert asked == [(4, True), (5, True), (6, False)]


def test_a_name_that_is_no_run_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: train.main(["--resume", "gone"])) == 2
    assert "neither gone nor runs/gone is the folder of a run" in capsys.readouterr().err


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "done", "--run.steps=4")
    (folder / "summary.json").write_text('{"steps": 4}')

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("a run was started")

    nothing = partial(one_run.train, parts=Parts(refuse, inputs=refuse))
    assert train.main(["--resume", str(folder)], train=nothing) == 0
    assert (folder / "summary.json").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(Preempted(), os.EX_TEMPFAIL), (KeyboardInterrupt(), 130), (Collapsed("x"), 3), (CheckpointFailed("x"), 1)],
)
def test_exit_codes_tell_how_it_ended(tmp_path: Path, error: BaseException, code: int) -> None:
    def end(*_: object, **__: object) -> Any:
        raise error

    ends = partial(one_run.train, parts=Parts(end, inputs=end))
    assert train.main(["--run.folder", str(tmp_path)], train=ends) == code
