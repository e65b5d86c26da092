"""The end of Ray in a driver, which must not decide the driver's exit code.

A driver's `ray.shutdown` waits for threads of Ray's own. Where they do not end within 30 s, Ray ends the process, with
exit code 1 and, at our log level, without a word (2.60, `CoreWorkerShutdownExecutor::WaitForCompletion`). Two preempted
runs that had saved everything were seen to end so, on a busy machine.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

log = logging.getLogger(__name__)

PATIENCE_S = 15.0  # half of Ray's, so that what is left of the run can end before it
_THREAD = "the shutdown of Ray"


def shut_down_ray(
    *, local: bool = False, shutdown: Callable[[], object] | None = None, patience_s: float = PATIENCE_S
) -> None:
    """Ends Ray in this process, by `ray.shutdown`. Where that takes too long the caller goes on; `leave_hanging_ray` is
    then to end the process.

    `local`: a cluster of this machine alone, started here, whose processes are then ended too. What `shutdown` raises
    is raised.
    """
    raised: list[BaseException] = []

    def run() -> None:
        import ray  # every command imports this module

        try:
            (shutdown or ray.shutdown)()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name=_THREAD, daemon=True)
    thread.start()
    thread.join(patience_s)
    if raised:
        raise raised[0]
    if thread.is_alive():
        log.warning("Ray did not shut down within %.0f s: it is left as it is, nothing of the run is lost", patience_s)
        if local:
            processes = psutil.Process().children(recursive=True)
            for process in processes:
                _kill(process)
            psutil.wait_procs(processes, timeout=patience_s)


def leave_hanging_ray(code: int) -> None:
    """Ends this process with the exit code where Ray still hangs in it; else returns.

    At once: the interpreter's own end would wait for Ray again.
    """
    if any(thread.name == _THREAD for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
