"""A training step's wall time, put together from its phases. Evaluations and checkpoints are not in it."""

from __future__ import annotations

from dataclasses import dataclass

from calibadv.memory.shape import ModelShape
from calibadv.step_time.flops import Phase
from calibadv.step_time.gpu import Gpu
from calibadv.step_time.layout import Layout
from calibadv.step_time.learning import learning_phase
from calibadv.step_time.publication import publication_phase
from calibadv.step_time.rollout import rollout_phase
from calibadv.step_time.work import ASSUMED, Assumptions, Work


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step's phases, and whether its rollouts go on beside the learning of the step before."""

    rollout: Phase
    learn: Phase
    sync: Phase
    overlapped: bool

    @property
    def seconds(self) -> float:
        """rollout + learn + sync; max(rollout, learn) + sync where they overlap."""
        rollout, learn = self.rollout.seconds, self.learn.seconds
        return (max(rollout, learn) if self.overlapped else rollout + learn) + self.sync.seconds

    @property
    def bound(self) -> str:
        """The longest phase, and what bounds that."""
        name = max(("rollout", "learn", "sync"), key=lambda phase: getattr(self, phase).seconds)
        phase: Phase = getattr(self, name)
        return f"{name}: {phase.bound}"


def step_time(shape: ModelShape, gpu: Gpu, work: Work, layout: Layout, assumed: Assumptions = ASSUMED) -> StepTime:
    """The step's phases on such GPUs. With `max_staleness` 1 rollouts overlap with learning."""
    return StepTime(
        rollout_phase(shape, gpu, work, layout, assumed),
        learning_phase(shape, gpu, work, layout.learners, assumed),
        publication_phase(shape, gpu, layout, assumed),
        overlapped=layout.max_staleness > 0,
    )
