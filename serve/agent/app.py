"""The agent's HTTP app: OpenAI's Responses and chat completions, thumbs, health, and the page. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import Body, FastAPI
from openai.types import Model
from sse_starlette import EventSourceResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from calibadv.config.serve import ServeConfig
from calibadv.http_client import is_loopback
from calibadv.rollout.protocols import SearchFailed
from calibadv.types import Document, TokenUnit, Trajectory
from serve.agent import chat, responses, streams
from serve.agent.citations import Searches, citations
from serve.agent.feedback import Feedback
from serve.agent.mcp import Answered, mount_mcp
from serve.agent.news import Accepted, Answerer, Asked, Interrupted, News, Refused
from serve.agent.places import Place, Places
from serve.agent.requests import BadRequest, ChatRequest, FeedbackRequest, ResponsesRequest, asked
from serve.agent.traces import Traces, served_record
from serve.agent.web import Guard, answer_errors, error, refusals

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
FLUSH_S = 8.0  # at the end, for traces that wait to be written
READY_S = 10.0  # that readiness may take: what asks for it has not much longer


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and within which limits."""

    model: str  # its name
    settings: ServeConfig
    feedback: Path
    tokens: TokenUnit = TokenUnit.WORDS
    token: str = ""  # of all who may ask; "": everyone
    about: str = ""  # one line for the page


async def _no_metrics() -> None:
    return None


def make_app(
    served: Served,
    answerer: Answerer,
    clock: Callable[[], float] = time.time,
    traces: Traces | None = None,
    metrics: Callable[[], Awaitable[str | None]] = _no_metrics,
) -> FastAPI:
    """The app. `answerer` rolls out; `clock` gives Unix time in seconds; `traces` take note of answers and thumbs.

    `metrics` are those of what runs the app, as Prometheus reads them; None where there are none.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        if traces is not None:
            await asyncio.to_thread(traces.flush, FLUSH_S)

    app = FastAPI(title="calibadv agent", description=served.about, docs_url=None, redoc_url=None, lifespan=lifespan)
    answers = {200: {"content": {"text/event-stream": {}}}, **refusals("4XX", "503", "504")}
    settings, places = served.settings, Places(served.settings.max_concurrent)
    feedback = Feedback(served.feedback, clock)
    answer_errors(app)

    async def begun(question: Asked, answer_id: str) -> tuple[AsyncGenerator[News, None], Place]:
        """News of a question that has a place and was accepted. `BadRequest` and `Busy` before anything is sent."""
        place, begun_s = places.take(), clock()

        def note(trajectory: Trajectory, found: Searches) -> None:
            if traces is not None:
                known = (answer_id, served.model, question.text, trajectory, found, begun_s, clock())
                traces.answered(answer_id, partial(served_record, *known))

        try:
            news = streams.noted(streams.in_time(answerer.news(question), settings.timeout_s), note)
            first = await anext(news)
        except BaseException:
            place.leave()
            raise
        if isinstance(first, Refused):
            place.leave()
            raise BadRequest(first.reason)
        assert isinstance(first, Accepted)
        return news, place

    async def answered(question: Asked, answer_id: str) -> Answered:
        """A whole answer. `Interrupted` where the search did not answer."""
        news, place = await begun(question, answer_id)
        found: Searches = ()
        with place:
            async with aclosing(news) as steps:
                async for step in steps:
                    found = streams.searches(found, step)
        assert isinstance(step, Trajectory)
        if step.infra_failed:
            raise Interrupted(responses.SEARCH_FAILED)
        return Answered(step, citations(step.answer, found, served.tokens))

    def check_model(name: str) -> None:
        if name != served.model:
            raise BadRequest(f"there is no model {name!r} here, only {served.model!r}", "model")

    @app.post("/v1/responses", responses=answers)
    async def create_response(request: Annotated[ResponsesRequest, Body()]) -> Response:
        check_model(request.model)
        question = asked(request, settings)
        response_id, created = f"resp_{secrets.token_hex(12)}", clock()
        news, place = await begun(question, response_id)
        events = streams.response_events(
            responses.begin(response_id, served.model, created, question.temperature, question.top_p),
            news,
            served.tokens,
            settings.timeout_s,
            streamed=request.stream,
        )
        kept = streams.kept(events, place, lambda whole: feedback.remember(response_id, _to_rate(question, whole)))
        if request.stream:
            return EventSourceResponse(streams.sse(kept), headers={"Cache-Control": "no-store"})
        async for together in kept:
            last = together[-1]
        assert last["type"] in responses.LAST
        return JSONResponse(last["response"])

    @app.post("/v1/chat/completions", responses=answers)
    async def create_completion(request: Annotated[ChatRequest, Body()]) -> Response:
        check_model(request.model)
        question = asked(request, settings)
        head = chat.Head(f"chatcmpl-{secrets.token_hex(12)}", served.model, int(clock()))
        if request.stream:
            stream = streams.chat_stream(
                head, *await begun(question, head.id), served.tokens, usage=request.wants_usage
            )
            return EventSourceResponse(stream, headers={"Cache-Control": "no-store"})
        whole = await answered(question, head.id)
        return _json(chat.completion(head, whole.trajectory, whole.citations))

    @app.post("/v1/feedback", responses=refusals("4XX"))
    async def rate(request: Annotated[FeedbackRequest, Body()]) -> Response:
        known = await asyncio.to_thread(feedback.rate, request.response_id, request.rating, request.comment)
        if not known:
            said = f"no answer {request.response_id!r} is remembered: only the newest can be rated"
            return error(404, said, "invalid_request_error", "response_id")
        if traces is not None:
            traces.rated(request.response_id, request.rating, request.comment)
        return JSONResponse({"kept": True})

    @app.get("/v1/models", responses=refusals("4XX"))
    async def models() -> Response:
        return _json_list([_model(served, clock)])

    @app.get("/v1/models/{name:path}", responses=refusals("4XX"))
    async def model(name: str) -> Response:
        if name != served.model:
            return error(
                404, f"there is no model {name!r} here, only {served.model!r}", "invalid_request_error", "model"
            )
        return _json(_model(served, clock))

    @app.get("/healthz", response_class=PlainTextResponse)
    async def alive() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: {"description": "Not ready"}})
    async def ready() -> Response:
        try:
            await asyncio.wait_for(answerer.ready(), min(READY_S, settings.timeout_s))
        except Exception:
            logger.exception("not ready")  # to the log, not to whoever asks: this path needs no token
            return PlainTextResponse("not ready\n", 503)
        return PlainTextResponse("ok\n")

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **refusals("4XX", "503")})
    async def measured() -> Response:
        try:
            text = await metrics()
        except httpx.HTTPError as silent:
            raise Interrupted("the metrics of this node do not answer") from silent
        if text is None:
            return error(404, "what runs this agent exports no metrics", "invalid_request_error")
        return PlainTextResponse(text)

    async def ask(question: str) -> Answered:
        request = ResponsesRequest(model=served.model, input=question)
        return await answered(asked(request, settings), f"mcp_{secrets.token_hex(12)}")

    async def search(query: str) -> tuple[Document, ...]:
        text = asked(ResponsesRequest(model=served.model, input=query), settings).text
        with places.take():
            try:
                return await asyncio.wait_for(answerer.search(text), settings.timeout_s)
            except SearchFailed:
                raise Interrupted(responses.SEARCH_FAILED) from None
            except TimeoutError:
                raise TimeoutError(f"the search took longer than {settings.timeout_s:g} s: try again") from None

    if find_spec("mcp"):
        mount_mcp(app, ask, search, served.about)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(Guard, token=served.token, max_body_bytes=settings.max_body_kb * 1000)
    # A page of another name that resolves to this machine is not let in; it would not have the token.
    if is_loopback(settings.host) and not served.token:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", settings.host])
    return app


def _to_rate(question: Asked, response: Mapping[str, Any]) -> dict[str, Any]:
    """What a thumb is about."""
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    answer = "".join(part["text"] for part in parts)
    cited = [note["file_id"] for part in parts for note in part["annotations"]]
    return {"model": response["model"], "question": question.text, "answer": answer, "documents": cited}


def _model(served: Served, clock: Callable[[], float]) -> Model:
    return Model(id=served.model, created=int(clock()), object="model", owned_by="calibadv", about=served.about)


def _json(value: Any) -> Response:
    return Response(value.model_dump_json(exclude_unset=True), media_type="application/json")


def _json_list(values: list[Model]) -> Response:
    return JSONResponse({"object": "list", "data": [value.model_dump(exclude_unset=True) for value in values]})
