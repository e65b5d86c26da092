"""A run that lost a process starts again by itself, from its newest checkpoint, a bounded number of times.

A restart mends what is gone: a learner, a node, the policy board. It mends nothing that would happen again: an error in
the code, an engine that cannot be built or dies again and again, a search that stays down, a disk or a memory that is
full, an input that is wrong.
"""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

from ray.exceptions import LocalRayletDiedError, NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError

from calibadv.rllib.learner_group import LearnersLost

log = logging.getLogger(__name__)

_T = TypeVar("_T")
# ObjectLostError: of weights or questions whose owner is gone.
_LOST = (LearnersLost, LocalRayletDiedError, NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError)


class RestartsUsedUp(RuntimeError):
    """What a restart mends has happened more often than `checkpoint.max_restarts` allows."""


def mends(error: BaseException) -> bool:
    """Whether the run may go on if it is started again."""
    if getattr(error, "actor_init_failed", False):
        return False  # it could not be built
    return isinstance(error, _LOST)


def restarted(attempt: Callable[[int, str], _T], *, max_restarts: int) -> _T:
    """What `attempt(restarts so far, why the last one)` returns at last, begun anew after each error that this mends.

    Raises `RestartsUsedUp` instead of one restart too many, and as it is whatever a restart does not mend.
    """
    restarts, why = 0, ""
    while True:
        try:
            return attempt(restarts, why)
        except Exception as error:
            if not mends(error):
                raise
            if restarts >= max_restarts:
                raise RestartsUsedUp(_used_up(error, max_restarts)) from error
            why = str(error)
            # Frames hold handles of the Ray that was shut down, which the next one must not be asked about.
            traceback.clear_frames(error.__traceback__)
        gc.collect()
        restarts += 1
        log.warning("%s: the run starts again by itself, restart %d of %d", why, restarts, max_restarts)


def _used_up(error: Exception, max_restarts: int) -> str:
    used = (
        f"and checkpoint.max_restarts = {max_restarts} restarts are used up"
        if max_restarts
        else "and checkpoint.max_restarts = 0 allows no restart"
    )
    return f"{error}, {used}: the same command with --resume goes on from the newest checkpoint, if there is one"
