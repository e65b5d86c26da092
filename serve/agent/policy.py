"""The engine's deployment: it rolls out questions with the project's own agent, and gives news of each as it goes.

Engine, dialogue and limits are made by what makes a run's (`calibadv.cluster.factories`), so that a served question
meets the tokens that were trained.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from calibadv.cluster.engine import Engine
from calibadv.cluster.engine_timeout import LastAnswer, TimedGenerate
from calibadv.cluster.factories import AnyDialogue, make_dialogue, make_engine, make_limits
from calibadv.config import Config
from calibadv.methods import Method
from calibadv.rollout.agent import Agent, Limits, OnVoidTurn
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.protocols import EngineDied, GenerateFn, Generation, Sampling, SearchFn
from calibadv.rollout.seeds import sampling_seed
from calibadv.rollout.tools import Tool
from calibadv.sendable import sendable
from calibadv.types import Document, IntArray, Question
from serve.agent.news import Accepted, Asked, News, Refused, Written
from serve.agent.writing import Heard, joined, told_as_written

logger = logging.getLogger(__name__)

# Text alone passes to the front once in so many seconds, times the rollouts under way: at most 50 passages a second.
TEXT_EVERY_S = 0.02
PROOF_AGE_S = 10.0  # an answer of the engine this recent proves that the next one will come
NO_GOLDEN_ANSWER = ("",)  # of a question that nobody scores; an empty one scores 0


@dataclass(frozen=True)
class Parts:
    """What a replica answers with."""

    engine: Engine
    dialogue: AnyDialogue
    search: Callable[[], SearchFn]  # made at the first rollout: the search app may start while engines do
    limits: Limits
    require_search: bool
    on_void_turn: OnVoidTurn
    tools: Sequence[Tool]
    run_seed: int
    engine_timeout_s: float


def make_parts(
    config: Config, method: Method, model_folder: str, search: Callable[[], SearchFn], tools: Sequence[Tool]
) -> Parts:
    """The parts of a run's configuration, over the model of that folder."""
    rollout = config.rollout
    return Parts(
        engine=make_engine(config, model_folder),
        dialogue=make_dialogue(config, method, model_folder, tools),
        search=search,
        limits=make_limits(config),
        require_search=rollout.require_search,
        on_void_turn=rollout.on_void_turn,
        tools=tools,
        run_seed=config.run.seed,
        engine_timeout_s=rollout.engine_timeout_s,
    )


class Policy:
    """One replica. `make` is called in it."""

    def __init__(self, make: Callable[[], Parts]) -> None:
        self._parts = make()
        self._last_answer = LastAnswer()
        self._death: Exception | None = None
        self._proved_s = float("-inf")
        self._under_way = 0

    async def roll(self, asked: Asked) -> AsyncGenerator[tuple[News, ...], None]:
        """News of one rollout, the trajectory last. Whoever closes the iterator ends the rollout.

        What happened meanwhile comes together, and text waits for more of it, the longer the more rollouts there are:
        each passage between two processes costs milliseconds of both.
        """
        parts = self._parts
        question = Question(f"served/{uuid.uuid4().hex}", asked.text, NO_GOLDEN_ANSWER)
        prompt_tokens = len(parts.dialogue.prompt_ids(question.text))
        if prompt_tokens > parts.limits.max_prompt_tokens:
            refused = (
                f"the question makes a prompt of {prompt_tokens} tokens, and at most "
                f"{parts.limits.max_prompt_tokens} fit: shorten it"
            )
            yield (Refused(refused),)
            return
        yield (Accepted(prompt_tokens),)
        waiting: asyncio.Queue[Heard | None] = asyncio.Queue()
        rollout = asyncio.create_task(self._roll(asked, question, waiting.put_nowait))
        rollout.add_done_callback(lambda _: waiting.put_nowait(None))
        self._under_way += 1
        try:
            ended, passed_s = False, float("-inf")
            while not ended:
                news = await _together(waiting, passed_s + TEXT_EVERY_S * self._under_way)
                passed_s = asyncio.get_running_loop().time()
                if told := joined(one for one in news if one is not None):
                    yield told
                ended = news[-1] is None
            await rollout  # raises what it raised
        finally:
            self._under_way -= 1
            rollout.cancel()

    async def search(self, query: str) -> tuple[Document, ...]:
        """What the agent's search finds, in text that can be answered with."""
        return sendable(await self._search(query))

    async def ready(self) -> None:
        """Raises where the engine cannot sample a token, or the search finds nothing to say."""
        if time.monotonic() - self._proved_s < PROOF_AGE_S:
            return
        await self._generate(self._parts.dialogue.prompt_ids("Is anyone there?"), Sampling(1, 0.0))
        await self._search("Is anyone there?")
        self._proved_s = time.monotonic()

    async def check_health(self) -> None:
        """Raises when the engine is lost; Serve then replaces this replica."""
        if self._death is not None:
            raise RuntimeError(f"the engine is lost: {self._death}") from self._death

    @cached_property
    def _search(self) -> SearchFn:
        return self._parts.search()

    async def _roll(self, asked: Asked, question: Question, tell: Callable[[Heard], None]) -> None:
        parts = self._parts
        generate: GenerateFn = self._generate
        if asked.as_written:
            generate = told_as_written(generate, parts.dialogue.text, tell, _call_marks(parts.dialogue))
        agent = Agent(
            parts.dialogue,
            generate,
            self.search,
            parts.limits,
            parts.require_search,
            parts.on_void_turn,
            {tool.name: tool for tool in parts.tools},
        )
        trajectory = await agent.roll(
            question,
            temperature=asked.temperature,
            top_p=asked.top_p if asked.temperature else 1.0,
            seed_of_turn=lambda turn: sampling_seed(parts.run_seed, 0, "served", asked.seed, turn),
            policy_version=parts.engine.version,
            tell=tell,
        )
        self._proved_s = time.monotonic()
        tell(trajectory)  # in the same breath as its last turn

    async def _generate(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        engine = TimedGenerate(self._parts.engine, self._parts.engine_timeout_s, self._last_answer)
        try:
            return await engine(prompt_ids, sampling)
        except EngineDied as death:
            logger.exception("the engine is lost")
            self._death = death
            raise


async def _together(waiting: asyncio.Queue[Heard | None], until_s: float) -> list[Heard | None]:
    """What waits, at least one; what is text alone is waited beside until there is more than text, or `until_s`."""
    news = [await waiting.get()]
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until_s):
            while isinstance(news[-1], Written):
                news.append(await waiting.get())
    while not waiting.empty():
        news.append(waiting.get_nowait())
    return news


def _call_marks(dialogue: AnyDialogue) -> tuple[str, ...]:
    """What begins a call; () in tags, which are known everywhere."""
    return () if isinstance(dialogue, TagsDialogue) else (dialogue.syntax.opener,)
