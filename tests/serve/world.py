"""A served agent in this process: the real policy and app over an engine that replays a script."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from openai import AsyncOpenAI

from calibadv.config.serve import ServeConfig
from calibadv.rollout.agent import Limits
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.protocols import GenerateFn, Generation, Sampling, SearchFn, StopReason
from calibadv.types import Document, IntArray
from serve.agent.app import Served, make_app
from serve.agent.news import Asked, News
from serve.agent.policy import Parts, Policy
from tests.rollout.scripted import ADA, TOKENIZER, Library, spelled

NILS = Document("nils", "Nils", "Nils was born in Bergen.", 0.25)
SEARCH = "<think> who is Ada </think><search> Ada </search>"
ANSWER = "<think> clear </think><answer> Oslo </answer>"


@dataclass
class Endless:
    """An engine that says the lines of a script to each question, whoever asks beside it."""

    lines: Sequence[str] = (SEARCH, ANSWER)
    version: int = 7
    samplings: list[Sampling] = field(default_factory=list)
    contexts: list[IntArray] = field(default_factory=list)

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        self.contexts.append(prompt_ids)
        self.samplings.append(sampling)
        said = TOKENIZER.decode(prompt_ids.tolist())
        ids = spelled(self.lines[said.count("</information>")])
        return Generation(ids, np.zeros(len(ids), np.float32), StopReason.TAG)


class Slow(Endless):
    """An engine that gives the first letters of an answer and no more until they were read."""

    def __init__(self) -> None:
        super().__init__((SEARCH, "<think> clear </think><answer> Oslo, in Norway </answer>"))
        self.was_read, self.inside = asyncio.Event(), 0

    async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
        said = await super().__call__(prompt_ids, sampling)
        if (listens := sampling.heard) and "Norway" in (text := TOKENIZER.decode(said.ids.tolist())):
            letters = said.ids[:-1].tolist()
            begun = text.index("slo")
            for letter in letters[:begun]:
                listens([letter])
            self.inside += 1
            try:
                await self.was_read.wait()
            finally:
                self.inside -= 1
            for letter in letters[begun:]:
                listens([letter])
        return said


def parts(engine: GenerateFn, search: SearchFn | None = None, limits: Limits | None = None) -> Parts:
    library = search or Library((ADA, NILS))
    dialogue = TagsDialogue(TOKENIZER, "", "Q {question}\n")
    return Parts(engine, dialogue, lambda: library, limits or Limits(), True, "stop", (), 0, 60.0)  # type: ignore[arg-type]


class InProcess:
    """The `Answerer` over a policy that is at hand."""

    def __init__(self, made: Parts) -> None:
        self.policy = Policy(lambda: made)
        self.search, self.ready = self.policy.search, self.policy.ready

    async def news(self, asked: Asked) -> AsyncGenerator[News, None]:
        async with aclosing(self.policy.roll(asked)) as rollout:
            async for together in rollout:
                for one in together:
                    yield one


def http(
    answerer: Any, folder: Path, *, token: str = "", headers: dict[str, str] | None = None, **settings: Any
) -> httpx.AsyncClient:
    """A client of an app over the answerer."""
    served = Served("tiny", ServeConfig(**settings), folder / "feedback.jsonl", token=token)
    transport = httpx.ASGITransport(make_app(served, answerer, clock=lambda: 1000.0), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


def client(answerer: Any, folder: Path, **settings: Any) -> AsyncOpenAI:
    """The official client of the same."""
    key = settings.get("token", "") or "none"
    return AsyncOpenAI(
        base_url="http://127.0.0.1/v1", api_key=key, http_client=http(answerer, folder, **settings), max_retries=0
    )


@asynccontextmanager
async def listening(answerer: Any, folder: Path, **settings: Any) -> AsyncIterator[str]:
    """The address of the app, which reads and sends as it goes: a transport in this process waits for the whole."""
    app = make_app(Served("tiny", ServeConfig(**settings), folder / "feedback.jsonl"), answerer)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        serving = asyncio.create_task(server.serve([bound]))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        server.should_exit = True
        await serving


@asynccontextmanager
async def live_client(answerer: Any, folder: Path) -> AsyncIterator[AsyncOpenAI]:
    """The official client of the same."""
    async with (
        listening(answerer, folder) as url,
        AsyncOpenAI(base_url=f"{url}v1", api_key="none", max_retries=0) as agent,
    ):
        yield agent
