"""The end of this process's Ray, and of what in it still asks Ray."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import ray

log = logging.getLogger(__name__)

ASKING = ("StreamingExecutor-", "rollouts", "stall-watch", "check ")
"""What the names of threads begin with that ask Ray: Ray Data's executions, the stream's reader, who looks for stalls,
and doctor's checks. All of them end by themselves once nobody wants anything of them."""
PATIENCE_S = 30.0


def end_ray(patience_s: float = PATIENCE_S, shutdown: Callable[[], None] = ray.shutdown) -> None:
    """`ray.shutdown`, once the threads that ask Ray have ended, or after `patience_s`, which a warning then says.

    A thread that asks a Ray that is gone ends its process there and then, with exit code 1 and without a word (Ray
    2.60, `CoreWorkerProcess::GetCoreWorker`). Ray Data leaves one behind: on a busy machine its execution takes longer
    to end than the 2 s for which its iterator waits.
    """
    deadline_s = time.monotonic() + patience_s
    for thread in _asking():
        thread.join(max(0.0, deadline_s - time.monotonic()))
    if left := [thread.name for thread in _asking()]:
        log.warning("Ray is shut down while %s may still ask it, which would end this process", ", ".join(left))
    shutdown()


def _asking() -> list[threading.Thread]:
    here = threading.current_thread()
    return [thread for thread in threading.enumerate() if thread.name.startswith(ASKING) and thread is not here]
