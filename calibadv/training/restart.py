"""A run that lost a process starts again by itself, from its newest checkpoint, a bounded number of times.

A restart brings back what is gone: a learner, a node, the coordinator. It helps nothing that would happen again: an
error in the code, an engine that cannot be built or dies again and again, a search that stays down, a disk or a memory
that is full, an input that is wrong.

The command starts again by `exec`, as the same process with the same arguments. Within one process it cannot: Ray's
libraries keep handles of the Ray that they first met (Serve its controller's, 2.60), and fail in the next one. A Tune
trial, whose Ray was there before it and stays, is begun again where it is.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NoReturn, TypeVar

from calibadv.rllib.lost import recoverable

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_PASSED_ON = "CALIBADV_RESTART"  # from a process to itself after `exec`


@dataclass(frozen=True, slots=True)
class Restart:
    """How often a command has started its run again by itself, and why the last time."""

    number: int = 0
    why: str = ""


FIRST_START = Restart()


def next_restart(error: Exception, restart: Restart, max_restarts: int) -> Restart | None:
    """The restart that follows `error`, said in words; None where none may follow, which is added to the error's notes.

    Raises the error itself where no restart recovers from it.
    """
    if not recoverable(error):
        raise error
    if restart.number < max_restarts:
        number = restart.number + 1
        log.warning("%s: the run starts again by itself, restart %d of %d", error, number, max_restarts)
        return Restart(number, str(error))
    used = f"{max_restarts} restarts are used up" if max_restarts else "0 allows no restart"
    error.add_note(
        f"checkpoint.max_restarts = {used}: the same command with --resume goes on from the newest checkpoint, if "
        "there is one"
    )
    return None


def with_restarts(attempt: Callable[[Restart], _T], *, max_restarts: int) -> _T:
    """What `attempt` returns at last, begun again in this process, in a Ray that stays up.

    Raises what a restart does not recover from, and the last loss instead of one restart too many.
    """
    restart = FIRST_START
    while True:
        try:
            return attempt(restart)
        except Exception as error:
            following = next_restart(error, restart, max_restarts)
            if following is None:
                raise
            restart = following
            traceback.clear_frames(error.__traceback__)  # they hold the actors of the attempt that has failed
        gc.collect()


def start_again(restart: Restart) -> NoReturn:
    """Becomes the same command anew. A signal that comes meanwhile waits for `Interruption.installed`."""
    os.environ[_PASSED_ON] = json.dumps(asdict(restart))
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def started_again() -> Restart:
    """What `start_again` passed on to this process; forgets it, so that no child is told."""
    passed_on = os.environ.pop(_PASSED_ON, "")
    return Restart(**json.loads(passed_on)) if passed_on else FIRST_START
