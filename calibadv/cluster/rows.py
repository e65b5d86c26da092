"""What goes into the rollout stream and what comes out of it: a row is one question of one step."""

from __future__ import annotations

from dataclasses import dataclass

from calibadv.rollout.group import RolledGroup
from calibadv.types import Phase, Question


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One question to roll out."""

    phase: Phase
    step: int
    index: int  # its place in the step
    question: Question
    sampled: bool = False  # its rollouts are written out for people, with the documents that they found
    version: int | None = None  # the policy that it needs at least; None: the step's own, less what may be stale
    spares: tuple[Question, ...] = ()  # asked one after the other, until a group is one that trains


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """What came of one."""

    phase: Phase
    step: int
    index: int
    engine: str
    rolled: RolledGroup
    sampled: bool = False  # as the row's
    started_s: float = 0.0  # Unix time
    finished_s: float = 0.0
    mixed: bool = False  # the engine took newer weights meanwhile, and its rollouts went on with them
