"""HTTP at the replica itself: no proxy between a caller and its answer, which on a CPU costs more than the search.

Replicas of one node share a port: the kernel gives each connection to one of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_S = 5  # for calls under way when it stops


class Bounded:
    """An ASGI application that answers so many calls at a time, each in its time, and none that nobody waits for."""

    def __init__(self, app: ASGIApp, most: int, timeout_s: float) -> None:
        self._app, self._most, self._timeout_s = app, most, timeout_s
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """503 for a call too many, 408 for one not answered in time; one whose caller has gone is cancelled."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._most:
            await PlainTextResponse("too many calls: ask again later\n", 503)(scope, receive, send)
            return
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._under_way += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await _while_awaited(self._app, scope, receive, told)
        except TimeoutError:
            if begun:  # half an answer cannot become another one: uvicorn closes the connection
                raise
            await PlainTextResponse(f"not answered within {self._timeout_s:g} s\n", 408)(scope, receive, send)
        finally:
            self._under_way -= 1


async def _while_awaited(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """One call, cancelled when its caller goes. What is received is read a message ahead, so that this is heard of."""
    ahead: asyncio.Queue[Message] = asyncio.Queue(1)
    answering = asyncio.ensure_future(app(scope, ahead.get, send))

    async def listen_on() -> None:
        while (message := await receive())["type"] != "http.disconnect":
            await ahead.put(message)

    hearing = asyncio.ensure_future(listen_on())
    try:
        await asyncio.wait({answering, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            await answering
    except ClientDisconnect:
        pass
    finally:
        for task in (answering, hearing):
            task.cancel()
        await asyncio.gather(answering, hearing, return_exceptions=True)


class Listener:
    """A class whose replicas listen: one that ends answers the calls under way, for `DRAIN_S` at most, and no more."""

    _stop: Callable[[], Awaitable[None]] | None = None  # what `listen` returned

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits it when the replica ends; once more Python calls it, who must find nothing to await."""
        stop, self._stop = self._stop, None
        return stop() if stop is not None else None


def listen(app: ASGIApp, host: str, port: int, *, lifespan: bool = False) -> Callable[[], Awaitable[None]]:
    """Serves `app` on the running event loop as long as what is returned is kept; calling it stops, once or more often.

    `lifespan`: whether the application is told of its start and its end. OSError for a taken address.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # who calls before the server has begun waits for it
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    config = uvicorn.Config(
        app,
        lifespan="on" if lifespan else "off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)
    serving = asyncio.get_running_loop().create_task(server.serve([listener]))

    async def stop() -> None:
        server.should_exit = True
        await serving

    return stop
