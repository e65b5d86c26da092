"""The installed command: what it offers, what it refuses, and that a wheel of the project is all that it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibadv.tracking.provenance import command_line
from calibadv.tracking.starting import said_starting
from tests.integration.commands import ray_folder
from tests.integration.runs import SMALL, lines
from tests.workflows.test_init import FOLDER
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


def test_a_command_parses_composes_and_reports_in_fewer_than_120_lines() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "workflows").glob("*.py")}
    lines = {name: text.count("\n") for name, text in texts.items() if "\n    sys.exit(run_command(main))\n" in text}
    assert lines.keys() >= {f"{command.module}.py" for command in cli.COMMANDS.values()}
    assert {name: count for name, count in lines.items() if count >= 120} == {}


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


@pytest.mark.integration
def test_a_wheel_in_an_environment_of_its_own_trains_outside_the_repository(tmp_path: Path) -> None:
    """Built from a copy without the repository around it; the libraries are this environment's, the project is not."""
    aside = {"PYTHONPATH", "RAY_ADDRESS"}
    environment = {name: value for name, value in os.environ.items() if name not in aside}
    environment |= {"CI": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(*command: str | Path, cwd: Path) -> str:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, files.stdout.split("\0")):
        if name.startswith(("calibadv/", "serve/", "workflows/", "pyproject.toml", "README.md", "LICENSE")):
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / name).write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, "./source", cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "own", cwd=tmp_path)
    run(*pip, "--python", tmp_path / "own" / "bin" / "python", "install", "--no-deps", wheel, cwd=tmp_path)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "own")}))
    # A folder that a .pth names is searched, but of its own .pth files, such as that of the repository, none is read.
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    empty, installed = tmp_path / "empty", tmp_path / "own" / "bin"
    empty.mkdir()
    code = "import calibadv, serve, workflows; print(calibadv.__file__, *serve.__path__, workflows.__file__)"
    assert run(installed / "python", "-c", code, cwd=empty).count(str(site)) == 3

    with ray_folder() as ray:
        environment["RAY_TMPDIR"] = str(ray)
        given = {"run.name": "one", "run.steps": "1", "tracking.report": "true"}
        flags = [part for key, value in (SMALL | given).items() for part in (f"--{key}", value)]
        run(installed / "calibadv", "train", *flags, cwd=empty)
    _, step = lines(empty / "runs" / "one" / "metrics.jsonl")
    assert step["step"] == 1
    assert (empty / "runs" / "one" / "model" / "model.safetensors").exists()
    assert "<script>" in (empty / "runs" / "one" / "report.html").read_text(encoding="utf-8")
    run(installed / "calibadv", "init", "mine", cwd=empty)
    assert {path.name for path in (empty / "mine").iterdir()} == FOLDER
