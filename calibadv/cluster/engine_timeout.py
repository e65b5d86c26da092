"""An engine whose silence is its death: generations, and calls that change it, that do not come back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from calibadv.rollout.protocols import EngineDied, GenerateFn, Generation, Sampling
from calibadv.types import IntArray

T = TypeVar("T")


class LastAnswer:
    """When an engine last answered any request, in its event loop's seconds; shared by all its rollouts."""

    def __init__(self) -> None:
        self.at_s = float("-inf")


class TimedGenerate:
    """A `GenerateFn` that remembers the engine's death, and takes `timeout_s` without any answer for one.

    A request alone may well take longer: in a long queue it waits for those before it, which are answered meanwhile.
    """

    def __init__(self, generate: GenerateFn, timeout_s: float, last_answer: LastAnswer) -> None:
        self._generate, self._timeout_s, self._last_answer = generate, timeout_s, last_answer
        self.death: EngineDied | None = None

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        try:
            return await self._answered(asyncio.ensure_future(self._generate(prompt_ids, sampling)))
        except EngineDied as death:
            self.death = death
            raise

    async def _answered(self, request: asyncio.Future[Generation]) -> Generation:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            while True:
                since_s = max(begun_s, self._last_answer.at_s)
                done, _ = await asyncio.wait({request}, timeout=max(0.0, since_s + self._timeout_s - loop.time()))
                if done:
                    self._last_answer.at_s = loop.time()
                    return request.result()
                if self._last_answer.at_s <= since_s:
                    raise EngineDied(f"it hangs: no request was answered for {self._timeout_s:g} s")
        finally:
            request.cancel()


async def within(timeout_s: float, call: Awaitable[T], what: str) -> T:
    """What `call` returns; `EngineDied` if that takes longer than `timeout_s`, which tells `what` it was."""
    try:
        return await asyncio.wait_for(call, timeout_s)
    except TimeoutError:
        raise EngineDied(f"it hangs: {what} took longer than {timeout_s:g} s") from None
