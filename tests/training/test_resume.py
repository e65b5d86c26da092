"""`train.py --resume` up to the point where anything would be started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calibadv.config import load_config, to_toml
from calibadv.training.sentinel import Collapsed
from calibadv.training.signals import Preempted
from calibadv.training.snapshots import CheckpointFailed
from tests.build import overrides_of
from workflows import one_run, train


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


def test_alone_it_means_the_run_of_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []
    monkeypatch.setattr(one_run, "train", lambda config, *, resume, **_: asked.append((config.run.seed, resume)) or 0)
    assert train.main(["--run.seed", "4", "--resume"]) == 0
    assert train.main(["--resume", "--run.seed", "5"]) == 0
    assert train.main(["--run.seed", "6"]) == 0
    assert asked == [(4, True), (5, True), (6, False)]


def test_a_name_that_is_no_run_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", "--resume", "gone"])
    assert train._cli() == 2
    assert "neither gone nor runs/gone is the folder of a run" in capsys.readouterr().err


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_in(tmp_path / "done", "--run.steps=4")
    (folder / "summary.json").write_text('{"steps": 4}')

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(one_run, "train_run", refuse)
    assert train.main(["--resume", str(folder)]) == 0
    assert (folder / "summary.json").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(Preempted(), os.EX_TEMPFAIL), (KeyboardInterrupt(), 130), (Collapsed("x"), 3), (CheckpointFailed("x"), 1)],
)
def test_exit_codes_tell_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, code: int
) -> None:
    def end(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(one_run, "train_run", end)
    assert train.main(["--run.folder", str(tmp_path)]) == code
