"""scripts/setup.sh with a Python that only writes down what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import ROOT, locked

STUB = """#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) exit {wrong} ;;
  "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/uv ;;
  "--version "*) echo "Python 3.12.1" ;;
esac
echo "$(basename "$0") $*" >> "{log}"
"""


class Checkout:
    """The files that the set-up reads, in a folder of their own."""

    def __init__(self, folder: Path, wrong: int = 0) -> None:
        self.folder, self.log = folder / "checkout", folder / "log"
        (self.folder / "scripts").mkdir(parents=True)
        for name in ("pyproject.toml", "requirements-cpu.lock", "scripts/setup.sh"):
            shutil.copy(ROOT / name, self.folder / name)
        self.python = folder / "python"
        self.python.write_text(STUB.format(wrong=wrong, log=self.log))
        self.python.chmod(0o755)

    def setup(self, *kind: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["bash", "scripts/setup.sh", *kind],
            cwd=self.folder,
            env=os.environ | {"PYTHON": str(self.python)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def installed(self) -> str:
        return self.log.read_text()


def test_the_cpu_stack_is_the_locks_and_is_made_once(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.setup().returncode == 0
    assert "--no-deps -r requirements-cpu.lock" in checkout.installed
    assert checkout.setup().returncode == 0
    assert checkout.installed == ""
    with (checkout.folder / "requirements-cpu.lock").open("a") as lock:
        lock.write("\n")
    assert checkout.setup().returncode == 0
    assert "requirements-cpu.lock" in checkout.installed


@pytest.mark.parametrize("kind", [(), ("gpu",)])
def test_what_an_interrupted_set_up_left_is_made_anew(kind: tuple[str, ...], tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    python = checkout.python.read_text()
    checkout.python.write_text(python.replace("echo", 'case "$*" in *install*) kill $PPID; exit 1 ;; esac\necho'))
    assert checkout.setup(*kind).returncode != 0
    half = checkout.folder / ".venv" / "half of a package"
    half.touch()
    checkout.python.write_text(python)
    assert checkout.setup(*kind).returncode == 0
    assert not half.exists()
    (checkout.folder / ".venv" / "whole").touch()
    assert checkout.setup(*kind).returncode == 0
    assert (checkout.folder / ".venv" / "whole").exists()


def test_the_gpu_stack_is_the_extra_and_no_later_target_lays_the_cpu_stack_over_it(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.setup("gpu").returncode == 0
    assert f"-m pip install --disable-pip-version-check -e .[gpu,dev] mlflow=={locked('mlflow')}" in checkout.installed
    for again in ((), ("gpu",)):
        assert checkout.setup(*again).returncode == 0
        assert checkout.installed == ""
    (checkout.folder / "pyproject.toml").write_text("# changed\n")
    assert checkout.setup().returncode == 0
    assert "-e .[gpu,dev]" in checkout.installed
    assert "requirements-cpu.lock" not in checkout.installed


def test_the_gpu_stack_is_not_laid_over_the_cpu_stack(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.setup()
    refused = checkout.setup("gpu")
    assert (refused.returncode, checkout.installed) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "rm -r .venv" in refused.stderr


@pytest.mark.parametrize("kind", [(), ("gpu",)])
def test_nothing_is_laid_over_an_environment_of_the_user_s(tmp_path: Path, kind: tuple[str, ...]) -> None:
    checkout = Checkout(tmp_path)
    (checkout.folder / ".venv" / "bin").mkdir(parents=True)
    refused = checkout.setup(*kind)
    assert (refused.returncode, checkout.installed) == (1, "")
    assert "rm -r .venv" in refused.stderr
    assert list((checkout.folder / ".venv").iterdir()) == [checkout.folder / ".venv" / "bin"]


@pytest.mark.parametrize("kind", [(), ("gpu",)])
def test_another_python_is_refused_by_name(tmp_path: Path, kind: tuple[str, ...]) -> None:
    checkout = Checkout(tmp_path, wrong=1)
    refused = checkout.setup(*kind)
    assert refused.returncode == 1
    assert "is Python 3.12.1; Python 3.11 is needed" in refused.stderr
    assert not (checkout.folder / ".venv").exists()
