"""From the news of a rollout to what a client reads as it comes, whatever ends it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from sse_starlette import ServerSentEvent

from calibadv.rollout import protocols
from calibadv.sendable import sendable
from calibadv.types import TokenUnit, Trajectory
from serve.agent import chat, responses
from serve.agent.citations import Searches, citations
from serve.agent.news import Accepted, Interrupted, News, Refused
from serve.agent.places import Place
from serve.agent.responses import Event
from serve.agent.web import WRONG, error

logger = logging.getLogger(__name__)

LATE = "The answer took longer than {:g} s and was given up."
LOST = "The engine was lost while it answered. Ask again."


async def in_time(news: AsyncGenerator[News, None], timeout_s: float) -> AsyncGenerator[News, None]:
    """The same news. TimeoutError where the last of them takes longer than `timeout_s` from the first call on."""
    until_s = asyncio.get_running_loop().time() + timeout_s
    async with aclosing(news) as steps:
        while True:
            try:
                async with asyncio.timeout_at(until_s):
                    step = await anext(steps)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise TimeoutError(LATE.format(timeout_s)) from None
            yield step


async def noted(
    news: AsyncGenerator[News, None], note: Callable[[Trajectory, Searches], None]
) -> AsyncGenerator[News, None]:
    """The same news. `note` is called with the trajectory, once it is there, and with what its searches found."""
    found = Searches(())
    async with aclosing(news) as steps:
        async for step in steps:
            found = searches(found, step)
            if isinstance(step, Trajectory):
                note(step, found)
            yield step


async def response_events(
    told: responses.Told, news: AsyncGenerator[News, None], tokens: TokenUnit, timeout_s: float, *, streamed: bool
) -> AsyncGenerator[list[Event], None]:
    """The events of a response, those of a step together.

    The last of them says how it ended, whatever ends it. What ends one that is not `streamed` early is raised, as a
    status can still say it: `Interrupted` where the search did not answer.
    """
    progress, events = told
    yield events
    try:
        async with aclosing(news) as steps:
            async for step in steps:
                assert not isinstance(step, Accepted | Refused)
                if isinstance(step, Trajectory):
                    if step.infra_failed and not streamed:
                        raise Interrupted(responses.SEARCH_FAILED)
                    progress, events = responses.end(progress, step, tokens)
                else:
                    progress, events = responses.step_events(progress, step)
                if events:
                    yield events
        return
    except Exception as error:
        if not streamed:
            raise
        if isinstance(error, TimeoutError):
            said = LATE.format(timeout_s)
        elif isinstance(error, Interrupted):
            said = LOST
        else:
            logger.exception("an answer failed")
            said = WRONG
    yield responses.failed(progress, said)[1]


async def kept(
    events: AsyncGenerator[list[Event], None], place: Place, remember: Callable[[Mapping[str, Any]], None]
) -> AsyncGenerator[list[Event], None]:
    """The same events. The place is given back when they end, or when nobody reads them any more."""
    with place:
        async with aclosing(events) as stream:
            async for together in stream:
                if (last := together[-1])["type"] in responses.LAST:
                    remember(last["response"])
                yield together


async def sse(events: AsyncGenerator[list[Event], None]) -> AsyncGenerator[bytes, None]:
    """A piece of the stream a step; the last says how the response ended, also where an event cannot be sent."""

    def piece(together: list[Event]) -> bytes:
        return b"".join(encoded(json_text(event), event["type"]) for event in together)

    begun: Mapping[str, Any] | None = None
    sent = 0
    try:
        async with aclosing(events) as stream:
            async for together in stream:
                begun = begun or together[0]["response"]
                yield piece(together)
                sent += len(together)
    except Exception:
        if begun is None:
            raise
        logger.exception("an answer could not be sent")
        yield piece(responses.failed(responses.Progress(begun, sent), WRONG)[1])


def json_text(value: Mapping[str, Any]) -> str:
    """JSON in one line, as short as it goes."""
    return sendable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def encoded(data: str, kind: str | None = None) -> bytes:
    return ServerSentEvent(data, event=kind).encode()


async def chat_stream(
    head: chat.Head, news: AsyncGenerator[News, None], place: Place, tokens: TokenUnit, *, usage: bool
) -> AsyncGenerator[bytes, None]:
    """Chunks, then [DONE]; an error in words in place of the last ones where the rollout failed."""

    def sent(*chunks: Any) -> bytes:
        return b"".join(encoded(chunk.model_dump_json(exclude_unset=True)) for chunk in chunks)

    said, found, told = "", Searches(()), chat.Sent()
    with place:
        yield sent(chat.first_chunk(head))
        try:
            async with aclosing(news) as steps:
                async for step in steps:
                    assert not isinstance(step, Accepted | Refused)
                    found = searches(found, step)
                    if not isinstance(step, Trajectory):
                        told, chunks = chat.step_chunks(head, told, step)
                    elif step.infra_failed:
                        chunks, said = [], responses.SEARCH_FAILED
                    else:
                        cited = citations(step.answer, found, tokens)
                        chunks = chat.last_chunks(head, told, step, cited, usage=usage)
                    if chunks:
                        yield sent(*chunks)
        except (TimeoutError, chat.TakenBack) as refusal:
            said = str(refusal)
        except Interrupted:
            said = LOST
        except Exception:
            logger.exception("an answer failed")
            said = WRONG
        if said:
            yield encoded(bytes(error(503, said, "server_error").body).decode())
        yield encoded("[DONE]")


def searches(found: Searches, step: News) -> Searches:
    """What was found so far."""
    if not isinstance(step, protocols.Answered):
        return found
    return (*found, *(result.documents for result in step.results if result.text is None))
