"""What goes between a client's request and the policy that answers it: a question in, news of its rollout out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from calibadv.rollout.protocols import Step
from calibadv.types import Document, Trajectory


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and how it is sampled. `temperature` 0 is greedy, as an evaluation asks."""

    text: str
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    as_written: bool = False  # turns are told while they are sampled, not only whole


@dataclass(frozen=True, slots=True)
class Accepted:
    """The first news of a question that can be answered."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The only news of one that cannot."""

    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """More of a turn that is being sampled: what its thought and its answer have beside what was told of them.

    `Sampled` then tells the whole turn. An answer that was begun and is none by then counts as never told.
    """

    index: int
    thought: str = ""
    answer: str = ""


News = Accepted | Refused | Written | Step | Trajectory
"""`Accepted`, then each step as it happens, and at last the whole trajectory; or `Refused` alone."""


class Interrupted(RuntimeError):
    """The engine was lost in the middle of an answer."""


class Busy(RuntimeError):
    """All places are taken."""


class Answerer(Protocol):
    """Whoever answers: the policy's deployment, or a fake in a test."""

    def news(self, asked: Asked) -> AsyncGenerator[News, None]:
        """The news of one rollout. Closing the iterator ends the rollout. Raises `Interrupted`."""
        ...

    async def search(self, query: str) -> tuple[Document, ...]:
        """What the agent's own search finds."""
        ...

    async def ready(self) -> None:
        """Raises where the engine or the search does not answer."""
        ...
