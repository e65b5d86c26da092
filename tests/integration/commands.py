"""Our commands as a terminal would start them: in a process group of their own, their output kept for the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600  # a run takes about a minute on two idle cores; pytest ends a process after 900


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A place for Ray's sockets, whose paths are limited to 107 characters: pytest's own folders are too long."""
    folder = Path(tempfile.mkdtemp(prefix="cr", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(script: Path, *arguments: str, cwd: Path, ray: Path) -> subprocess.Popen[str]:
    """The script under way."""
    environment = {"CI": "1", "OMP_NUM_THREADS": "1", "RAY_TMPDIR": str(ray), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A background job inherits an ignored Ctrl-C, and would pass it on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@contextmanager
def killed_on_error(process: subprocess.Popen[str]) -> Iterator[None]:
    """Nothing of the command outlives a test that fails in the body."""
    try:
        yield
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def ended(process: subprocess.Popen[str], timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Exit code and output, once the command has ended by itself."""
    with killed_on_error(process):
        output, _ = process.communicate(timeout=timeout_s)
    return process.returncode, output


def without_seconds(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rollouts without what is counted from the clock, so that they are equal in equal runs."""
    clocked = ("generate_s", "search_s")
    return [
        {k: v for k, v in record.items() if k != "written_ms"}
        | {"turns": [{k: v for k, v in turn.items() if k not in clocked} for turn in record["turns"]]}
        for record in records
    ]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    """Returns once `condition` holds; fails if the process ends first or time is up."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{what} did not come in {TIMEOUT_S} s"
        time.sleep(0.2)
