"""Which errors say that a process, a node or what it held is gone: those that a restart recovers from."""

from __future__ import annotations

from ray import exceptions


class LearnersLost(RuntimeError):
    """A learner's process is gone, and the group with it: training goes on from a checkpoint, with new learners."""


# ObjectLostError: of weights or questions whose owner is gone. ActorUnschedulableError: Ray Data pins its own actors to
# a node, which Ray may not know at that moment.
_LOST = (
    LearnersLost,
    exceptions.ActorUnschedulableError,
    exceptions.LocalRayletDiedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
)


def recoverable(error: BaseException) -> bool:
    """Whether the run may go on if it is started again."""
    if getattr(error, "actor_init_failed", False):
        return False  # it could not be built
    return isinstance(error, _LOST)
