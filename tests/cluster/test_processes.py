"""Signals to a process that may have ended, and heartbeat of one that may stand still."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time

import psutil

from calibadv.cluster.processes import Heartbeat, signal_here


def test_a_stopped_process_is_ended_and_an_ended_one_is_known_as_such() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    born_s = psutil.Process(child.pid).create_time()
    child.send_signal(signal.SIGSTOP)
    assert signal_here(child.pid, born_s, 0)
    assert not signal_here(child.pid, born_s - 100, signal.SIGKILL)  # another process had the pid then
    assert signal_here(child.pid, born_s, 0)
    assert signal_here(child.pid, born_s, signal.SIGKILL)
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not signal_here(child.pid, born_s, 0)
    child.wait()
    assert not signal_here(child.pid, born_s, 0)


async def test_no_heartbeat_is_sent_while_the_event_loop_is_blocked() -> None:
    threads: list[int] = []
    heartbeat = Heartbeat(lambda: threads.append(threading.get_ident()), timeout_s=0.02)
    await asyncio.sleep(0.05)
    heartbeat.follow(asyncio.get_running_loop())
    await asyncio.sleep(0.05)
    here = threading.get_ident()
    assert threads[0] != here
    assert threads[-1] == here
    count = len(threads)
    time.sleep(0.1)  # noqa: ASYNC251 (the block itself)
    assert len(threads) == count
    await asyncio.sleep(0.05)
    assert len(threads) > count
