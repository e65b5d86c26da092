"""A shutdown of Ray that hangs: the run ends with its own exit code, and its processes end with it."""

from __future__ import annotations

import subprocess
import sys
import threading

import psutil
import pytest

from calibadv.cluster.ray_shutdown import leave_hanging_ray, shut_down_ray

HANGS = """
import subprocess, sys, threading
from calibadv.cluster.ray_shutdown import shut_down_ray
from workflows.command import run_command

def main():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    shut_down_ray(local=True, shutdown=threading.Event().wait, patience_s=0.1)
    print("the rest of the run", flush=True)
    return 75

sys.exit(run_command(main))
"""


def test_a_shutdown_that_hangs_takes_neither_the_rest_of_the_run_nor_its_exit_code() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 75, done.stderr
    pid, rest = done.stdout.splitlines()
    assert rest == "the rest of the run"
    assert not psutil.pid_exists(int(pid))
    assert "Ray did not shut down within 0 s" in done.stderr


def test_a_shutdown_that_ends_is_waited_for_and_what_it_raises_is_raised() -> None:
    ended = threading.Event()
    shut_down_ray(shutdown=ended.set)
    assert ended.is_set()
    leave_hanging_ray(3)  # returns

    def fails() -> None:
        raise RuntimeError("no such cluster")

    with pytest.raises(RuntimeError, match="no such cluster"):
        shut_down_ray(shutdown=fails)
