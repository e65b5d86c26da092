"""A judge model behind an OpenAI-compatible endpoint, and the turn scorers that ask it.

The judge never stops a training run: a call that fails after all retries and a reply that cannot be read both count 0,
and are counted: `judge/calls`, `judge/failed`, `judge/unreadable` (in searches), `judge/seconds` (sum of latencies).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from calibadv.http_client import client_options, route_to
from calibadv.rewards.turns import TurnScorer, TurnScores
from calibadv.rewards.verdicts import (
    judged_searches_of,
    search_verdicts,
    step_prompt,
    step_verdict,
    trajectory_prompt,
)
from calibadv.types import Document, Group, Question, Trajectory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the judge is. ValueError, in the words of a method's parameters, for what cannot be one.

    The key is read from the environment variable `api_key_env` where the scorer runs; it is no part of a configuration.
    """

    url: str  # with the API's path, e.g. http://127.0.0.1:8000/v1
    model: str
    concurrency: int = 16  # calls in flight from one engine
    timeout_s: float = 30.0  # of one attempt
    retries: int = 2
    api_key_env: str = "JUDGE_API_KEY"
    longest_pause_s: float = 8.0  # between two attempts: the client's own

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password:
            raise ValueError(f"judge_url holds a user name or a password: put the key into ${self.api_key_env} instead")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"judge_url is {self.url!r}, expected the address of an OpenAI-compatible API with its path, "
                "e.g. http://127.0.0.1:8000/v1"
            )
        if not self.model:
            raise ValueError("judge_model is '', expected the name under which the endpoint serves the judge")
        if self.concurrency < 1:
            raise ValueError(f"judge_concurrency is {self.concurrency}, expected at least one call at a time")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ValueError(f"judge_timeout_s is {self.timeout_s}, expected a positive number of seconds")
        if self.retries < 0:
            raise ValueError(f"judge_retries is {self.retries}, expected 0 or more")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one call."""

    text: str | None  # None: it failed
    seconds: float  # from the first attempt to the end, without the wait for a free place
    prompt_tokens: int | None = None  # as the endpoint counts them; None where it does not say
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """One prompt, and the turns of its trajectory that the reply is about."""

    prompt: str
    steps: tuple[int, ...]


class Judge:
    """Asks one endpoint, at most `concurrency` prompts at a time, and never raises for what the endpoint does."""

    def __init__(self, endpoint: Endpoint, failed: str = "such calls count 0, see judge/failed") -> None:
        """`failed`: what becomes of calls that fail, in words."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self._endpoint, self._failed = endpoint, failed
        key = os.environ.get(endpoint.api_key_env, "").strip()
        self._places = asyncio.Semaphore(endpoint.concurrency)
        self._warned = False
        self._client = AsyncOpenAI(
            base_url=endpoint.url,
            api_key=key or "none",
            timeout=endpoint.timeout_s,
            max_retries=endpoint.retries,
            http_client=DefaultAsyncHttpxClient(**client_options(endpoint.url, token=bool(key))),
        )
        self._route = route_to(endpoint.url, token=bool(key))

    async def ask(self, prompts: Iterable[str]) -> dict[str, Reply]:
        """The reply to each distinct prompt."""
        distinct = list(dict.fromkeys(prompts))
        return dict(zip(distinct, await asyncio.gather(*(self._ask(prompt) for prompt in distinct)), strict=True))

    async def _ask(self, prompt: str) -> Reply:
        async with self._places:
            started = time.monotonic()
            text, used = None, None
            try:
                text, used = await self._text(prompt)
            except Exception as error:  # whatever an endpoint may answer with: training goes on without it
                self._warn(error)
            seconds = time.monotonic() - started
            return Reply(text, seconds, _count(used, "prompt_tokens"), _count(used, "completion_tokens"))

    async def _text(self, prompt: str) -> tuple[str, object]:
        """What the model said, and what it took."""
        endpoint = self._endpoint
        # The client's time-out is one of silence; a reply that trickles in has to end as well.
        async with asyncio.timeout((endpoint.retries + 1) * (endpoint.timeout_s + endpoint.longest_pause_s)):
            completion = await self._client.chat.completions.create(
                model=endpoint.model, messages=[{"role": "user", "content": prompt}], temperature=0.0
            )
        content = completion.choices[0].message.content
        return content if isinstance(content, str) else "", completion.usage  # the client checks no types

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "the judge %s at %s%s failed (%s: %.200s); %s",
                self._endpoint.model,
                self._endpoint.url,
                self._route,
                type(error).__name__,
                error,
                self._failed,
            )


def _count(used: object, what: str) -> int | None:
    number = getattr(used, what, None)
    return number if isinstance(number, int) and number >= 0 else None


def judged_steps(endpoint: Endpoint) -> Callable[[], TurnScorer]:
    """Scores every intermediate search by itself: 1 helpful, 0.5 partially, 0 not (CalibAdv's judge control).

    The judge sees question, golden answers, query and documents. Searches of a group with the same query and the same
    documents are one call, and a search that found nothing has 0 without one (our decisions).
    """

    def prompts_of(question: Question, trajectory: Trajectory, documents: Mapping[str, Document]) -> list[JudgePrompt]:
        turns = [(step, trajectory.turns[step]) for step in judged_searches_of(trajectory)]
        return [
            JudgePrompt(step_prompt(question, turn.query or "", [documents[doc] for doc in turn.doc_ids]), (step,))
            for step, turn in turns
            if turn.doc_ids
        ]

    return _scorer(endpoint, prompts_of, lambda reply, _: [step_verdict(reply)])


def judged_searches(endpoint: Endpoint) -> Callable[[], TurnScorer]:
    """Labels every intermediate search in hindsight: +1 good, -1 bad, 0 unreadable (CriticSearch).

    One call a trajectory: the judge sees all of it and the golden answers. Without such a search there is no call.
    """

    def prompts_of(question: Question, trajectory: Trajectory, documents: Mapping[str, Document]) -> list[JudgePrompt]:
        steps = judged_searches_of(trajectory)
        return [JudgePrompt(trajectory_prompt(question, trajectory, documents), tuple(steps))] if steps else []

    return _scorer(endpoint, prompts_of, search_verdicts)


def _scorer(
    endpoint: Endpoint,
    prompts_of: Callable[[Question, Trajectory, Mapping[str, Document]], list[JudgePrompt]],
    read: Callable[[str, int], list[float | None]],
) -> Callable[[], TurnScorer]:
    def make() -> TurnScorer:
        judge = Judge(endpoint)

        async def score(group: Group, documents: Mapping[str, Document]) -> TurnScores:
            calls = [prompts_of(group.question, trajectory, documents) for trajectory in group.trajectories]
            replies = await judge.ask(call.prompt for row in calls for call in row)
            rewards = [[0.0] * len(trajectory.turns) for trajectory in group.trajectories]
            unreadable = 0
            for reward_of, row in zip(rewards, calls, strict=True):
                for call in row:
                    text = replies[call.prompt].text
                    if text is None:
                        continue
                    for step, verdict in zip(call.steps, read(text, len(call.steps)), strict=True):
                        reward_of[step] = verdict or 0.0
                        unreadable += verdict is None
            return TurnScores(rewards, {**_counts(replies.values()), "judge/unreadable": float(unreadable)})

        return score

    return make


def _counts(replies: Collection[Reply]) -> dict[str, float]:
    return {
        "judge/calls": float(len(replies)),
        "judge/failed": float(sum(reply.text is None for reply in replies)),
        "judge/seconds": sum(reply.seconds for reply in replies),
    }
