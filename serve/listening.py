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

CALL_TIMEOUT_S = 120.0  # of one call: a caller that sends a byte a minute holds no place for ever


class Bounded:
    """An ASGI application that answers so many calls at a time, and none for longer than `timeout_s`."""

    def __init__(self, app: ASGIApp, most: int, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._app, self._most, self._timeout_s = app, most, timeout_s
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """503 for a call too many, 408 for one that is not answered in time."""
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
                await self._app(scope, receive, told)
        except TimeoutError:
            if begun:  # half an answer cannot become another one: uvicorn closes the connection
                raise
            await PlainTextResponse(f"not answered within {self._timeout_s:g} s\n", 408)(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        finally:
            self._under_way -= 1


def listen(app: ASGIApp, host: str, port: int) -> Callable[[], Awaitable[None]]:
    """Serves `app` on the running event loop until what is returned is awaited. OSError for a taken address."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", access_log=False, log_config=None, server_header=False))
    serving = asyncio.get_running_loop().create_task(server.serve([listener]))

    async def stop() -> None:
        server.should_exit = True
        await serving

    return stop
