"""The installed command: what it offers, what it refuses, and that a wheel of the project is all that it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibadv.tracking.provenance import command_line
from calibadv.tracking.starting import said_starting
from tests.report.made_up import history, write_run
from workflows import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _ends_what_it_says(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command's process ends with its help; here its Ctrl-C handler, which ends the process, must not stay."""
    monkeypatch.setattr("sys.argv", list(sys.argv))
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in a shell's background
    yield
    said_starting()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_alone_it_lists_its_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said and command.does in said for name, command in cli.COMMANDS.items())


def test_every_command_is_a_file_beside_it_with_a_way_in() -> None:
    for command in cli.COMMANDS.values():
        source = (ROOT / "workflows" / f"{command.module}.py").read_text(encoding="utf-8")
        assert "\ndef cli() -> int:\n" in source


def test_a_command_that_there_is_not_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert (
        "there is no command 'trian' (did you mean 'train'?); there are init, train, compare,"
        in capsys.readouterr().err
    )


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("calibadv 0.")


def test_help_is_the_commands_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", "--help"])
    assert end.value.code == 0
    assert "usage: calibadv compare [-h] [--report] [--dry-run] study" in capsys.readouterr().out


def test_a_run_of_the_installed_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["calibadv train", "--run.name", "a b"])
    assert command_line(Path("runs/x")) == "calibadv train --run.name 'a b'"


def test_a_wheel_holds_all_that_the_command_needs(tmp_path: Path) -> None:
    """Built from a copy without the repository around it, and used in an empty folder; the libraries are this one's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str, cwd: Path) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, files.stdout.split("\0")):
        if name.startswith(("calibadv/", "serve/", "workflows/", "pyproject.toml", "README.md", "LICENSE")):
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / name).write_bytes((ROOT / name).read_bytes())
    pip = ("-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "./source", cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel), cwd=tmp_path)
    environment["PYTHONPATH"] = str(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    where = run(
        "-c", "import calibadv, workflows; print(calibadv.__file__, workflows.__file__)", cwd=tmp_path / "empty"
    )
    assert where.count(str(tmp_path / "site")) == 2
    said = run(str(tmp_path / "site" / "bin" / "calibadv"), "train", "--dry-run", cwd=tmp_path / "empty")
    assert "[learner]" in said
    assert list((tmp_path / "empty").iterdir()) == []
    write_run(tmp_path / "trained", history(2))
    run(str(tmp_path / "site" / "bin" / "calibadv"), "report", str(tmp_path / "trained"), cwd=tmp_path / "empty")
    assert "<script>" in (tmp_path / "trained" / "report.html").read_text(encoding="utf-8")
    run(str(tmp_path / "site" / "bin" / "calibadv"), "init", "mine", cwd=tmp_path / "empty")
    assert {"recipe.toml", "reward.py", "search.py", "corpus.jsonl"} <= {
        path.name for path in (tmp_path / "empty" / "mine").iterdir()
    }
