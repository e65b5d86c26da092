"""HTTP at a replica: how many calls, for how long, and a port that replicas of a node share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from calibadv.cluster.local_ray import free_ports
from serve.listening import Bounded, listen


class Slow:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Semaphore(0), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.release()
        await self.go_on.wait()
        await PlainTextResponse("answer")(scope, receive, send)


def client(app: Bounded) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def test_one_call_too_many_is_503_and_the_others_are_answered() -> None:
    slow = Slow()
    async with client(Bounded(slow, 2, 60.0)) as asking:
        waiting = [asyncio.ensure_future(asking.get("/")) for _ in range(2)]
        for _ in waiting:
            await slow.asked.acquire()
        refused = await asking.get("/")
        assert (refused.status_code, refused.text) == (503, "too many calls: ask again later\n")
        slow.go_on.set()
        assert [reply.text for reply in await asyncio.gather(*waiting)] == ["answer"] * 2
        assert (await asking.get("/")).text == "answer"  # their places are free again


async def test_a_call_that_takes_too_long_is_408_and_gives_up_its_place() -> None:
    bounded = Bounded(Slow(), 1, timeout_s=0.01)
    async with client(bounded) as asking:
        for _ in range(2):
            reply = await asking.get("/")
            assert (reply.status_code, reply.text) == (408, "not answered within 0.01 s\n")


async def test_half_an_answer_is_not_followed_by_another() -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async with client(Bounded(half, 1, timeout_s=0.01)) as asking:
        with pytest.raises(TimeoutError):
            await asking.get("/")


async def test_a_caller_that_is_gone_is_no_failure() -> None:
    async def reads(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        await Request(scope, receive).body()

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def never(_: object) -> None:
        raise AssertionError("nobody is there to be answered")

    await Bounded(reads, 1, 60.0)({"type": "http", "method": "POST", "path": "/", "headers": []}, gone, never)


async def test_a_call_whose_caller_goes_is_cancelled_and_gives_up_its_place() -> None:
    slow, ended = Slow(), asyncio.Event()

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Request(scope, receive).body()
            await slow(scope, receive, send)
        finally:
            ended.set()

    (port,) = free_ports(1)
    stop = listen(Bounded(watched, 1, 60.0), "127.0.0.1", port)
    async with httpx.AsyncClient(trust_env=False) as asking:
        asked = asyncio.ensure_future(asking.post(f"http://127.0.0.1:{port}", content=b"x" * 100_000))
        await slow.asked.acquire()
        asked.cancel()
        async with asyncio.timeout(30):
            await ended.wait()
        slow.go_on.set()
        assert (await asking.post(f"http://127.0.0.1:{port}", content=b"again")).text == "answer"
    await stop()


async def test_start_and_end_are_told_to_an_application_that_wants_to_know() -> None:
    told = []

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        told.append("begun")
        yield
        told.append("ended")

    (port,) = free_ports(1)
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("answer"))], lifespan=lifespan)
    stop = listen(Bounded(app, 1, 60.0), "127.0.0.1", port, lifespan=True)  # it is not the one call that there may be
    async with httpx.AsyncClient(trust_env=False) as asking:
        assert (await asking.get(f"http://127.0.0.1:{port}")).text == "answer"
    assert told == ["begun"]
    await stop()
    await stop()
    assert told == ["begun", "ended"]


async def test_two_replicas_share_a_port_and_both_are_asked() -> None:
    (port,) = free_ports(1)

    def named(name: str) -> PlainTextResponse:
        return PlainTextResponse(name)

    stops = [listen(named(name), "127.0.0.1", port) for name in ("one", "other")]
    answers = set()
    for _ in range(200):  # a connection each: the kernel's draw, half and half
        async with httpx.AsyncClient(trust_env=False) as asking:
            answers.add((await asking.get(f"http://127.0.0.1:{port}")).text)
        if len(answers) == 2:
            break
    assert answers == {"one", "other"}
    for stop in stops:
        await stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0  # nobody listens any more


async def test_a_port_that_another_has_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            listen(PlainTextResponse("never"), "127.0.0.1", port)
