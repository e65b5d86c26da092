"""What every request passes: its size, its token, its host, the headers of the page, and errors in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calibadv.refusals import problems
from calibadv.sendable import sendable
from serve.access import authorised
from serve.agent.news import Busy, Interrupted
from serve.agent.requests import BadRequest

RETRY_AFTER_S = 2
WRONG = "Something went wrong on the server. Ask again."
# Nothing from elsewhere, nothing inline, no frame around the page, no form that leaves it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_WHEN = {
    "4XX": "Refused, and why",
    "503": "Full, or engine or search did not answer: ask again after Retry-After",
    "504": "The answer took too long",
}


class Problem(BaseModel):
    """What went wrong, in words."""

    message: str
    type: str
    param: str | None  # the field at fault
    code: None


class ErrorBody(BaseModel):
    """The body of every status from 400 on, which is that of OpenAI's errors."""

    error: Problem


def refusals(*statuses: str) -> dict[int | str, dict[str, Any]]:
    """Those statuses as OpenAPI describes them."""
    return {status: {"model": ErrorBody, "description": _WHEN[status]} for status in statuses}


def error(
    status: int, message: str, kind: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error as OpenAI's clients read it."""
    body = {"error": {"message": sendable(message), "type": kind, "param": param, "code": None}}
    return JSONResponse(body, status, headers=dict(headers or {}))


class Guard:
    """Refuses whoever lacks the token, and of the API a body over the limit; adds the headers. An ASGI middleware."""

    def __init__(self, app: ASGIApp, token: str, max_body_bytes: int) -> None:
        self._app, self._token, self._limit = app, token, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        api = scope["path"].startswith(("/v1", "/mcp", "/metrics"))
        if api and not authorised(request.headers.get("authorization", ""), self._token):
            said = "expected 'Authorization: Bearer <token>' with this server's token"
            await error(401, said, "authentication_error", headers={"WWW-Authenticate": "Bearer"})(
                scope, receive, with_headers
            )
            return
        if not api:  # nothing there reads a body: nobody without the token holds a place by sending one slowly
            await self._app(scope, receive, with_headers)
            return
        body = await self._body(receive)
        if body is None:
            said = f"the body is over {self._limit} bytes"
            await error(413, said, "invalid_request_error")(scope, receive, with_headers)
            return
        await self._app(scope, _again(body, receive), with_headers)

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None as soon as it is over the limit."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > self._limit:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read, once more; then whatever comes, which is that the client has gone."""
    given = False

    async def first() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return first


def answer_errors(app: FastAPI) -> None:
    """Every refusal in words, in one shape."""

    @app.exception_handler(BadRequest)
    async def bad(_: Request, raised: BadRequest) -> Response:
        return error(400, str(raised), "invalid_request_error", raised.param)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, raised: RequestValidationError) -> Response:
        first = problems(raised.errors())[0]
        where = first.where.removeprefix("body").removeprefix(".")
        return error(400, f"{where}: {first.said}" if where else first.said, "invalid_request_error", where or None)

    @app.exception_handler(HTTPException)
    async def http(_: Request, raised: HTTPException) -> Response:
        return error(raised.status_code, str(raised.detail), "invalid_request_error", headers=raised.headers)

    @app.exception_handler(Busy)
    async def busy(_: Request, raised: Busy) -> Response:
        return error(503, str(raised), "overloaded_error", headers={"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(Interrupted)
    async def interrupted(_: Request, raised: Interrupted) -> Response:
        return error(503, str(raised), "server_error", headers={"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(TimeoutError)
    async def late(_: Request, raised: TimeoutError) -> Response:
        return error(504, str(raised) or "the answer took too long", "server_error")

    @app.exception_handler(Exception)
    async def wrong(_: Request, __: Exception) -> Response:  # it is raised again behind us, and logged
        return error(500, WRONG, "server_error")
