"""A lockstep rollout loop, in place of those of trainers that the package registry does not carry (Search-R1's).

It is our own and minimal: all rollouts sample a turn as one batch, then all tools are called at once, and the next turn
begins when the last of them has answered. The rollouts themselves are ours (`Agent`), held together at each call.
"""

from __future__ import annotations

import asyncio

from calibadv.rollout.protocols import GenerateFn, Generation, Sampling, SearchFn
from calibadv.types import Document, IntArray


class Meeting:
    """Where rollouts wait for each other: `arrive` returns when all that have not left are there."""

    def __init__(self, rollouts: int) -> None:
        self._expected, self._there = rollouts, 0
        self._open = asyncio.Event()

    async def arrive(self) -> None:
        """Waits for the others."""
        self._there += 1
        event = self._open
        self._let_go()
        await event.wait()

    def leave(self) -> None:
        """One rollout is over."""
        self._expected -= 1
        self._let_go()

    def _let_go(self) -> None:
        if self._there and self._there == self._expected:
            self._there = 0
            self._open.set()
            self._open = asyncio.Event()


def in_step_generate(generate: GenerateFn, meeting: Meeting) -> GenerateFn:
    """`generate`, which begins when every rollout has its observation."""

    async def together(prompt_ids: IntArray, sampling: Sampling) -> Generation:
        await meeting.arrive()
        return await generate(prompt_ids, sampling)

    return together


def in_step_search(search: SearchFn, meeting: Meeting) -> SearchFn:
    """`search`, which begins when every rollout has sampled its turn."""

    async def together(query: str) -> tuple[Document, ...]:
        await meeting.arrive()
        return await search(query)

    return together
