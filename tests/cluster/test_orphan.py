"""Processes that end with the engine that they work for, with and without a core between them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RANK = (
    "import time; from calibadv.cluster.orphan import die_with; die_with({actor}); print('up', flush=True); "
    "time.sleep(600)"
)
CORE = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', RANK]).wait()"  # which no rule ends


@pytest.mark.parametrize("between", [False, True], ids=["the core itself", "a rank of the core"])
def test_whoever_works_for_a_killed_engine_ends(between: bool) -> None:
    script = (
        "import os, subprocess, sys\n"
        f"rank = {RANK!r}.replace('{{actor}}', str(os.getpid()))\n"
        f"core = {CORE!r}.replace('RANK', repr(rank)) if {between} else rank\n"
        "subprocess.Popen([sys.executable, '-c', core]).wait()\n"
    )
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=given) as actor:
        assert actor.stdout is not None
        assert actor.stdout.readline() == "up\n"
        started = psutil.Process(actor.pid).children(recursive=True)
        assert len(started) == 1 + between
        actor.kill()
    _, left = psutil.wait_procs(started, timeout=60)
    assert left == []
