"""Requests of any shape, made from the app's own OpenAPI: each gets an answer or a refusal in words, and none a 500."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from calibadv.config.serve import ServeConfig
from serve.agent.app import Served, make_app
from tests.serve.world import Endless, InProcess, parts

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]) | SCALARS, "content": st.just("Oslo?") | VALUES}
    ),
    max_size=3,
)
RIGHT = {
    "model": st.just("tiny"),
    "input": st.just("Where was Ada born?") | MESSAGES,
    "messages": MESSAGES,
    "temperature": st.floats(0, 2),
    "stream": st.booleans(),
    "seed": st.integers(0, 9),
    "response_id": st.just("resp_1"),
    "rating": st.sampled_from(["up", "down"]),
}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
HOST = {"Host": "127.0.0.1"}  # the one name that is answered
POSTED = ("/v1/responses", "/v1/chat/completions", "/v1/feedback")


def app(folder: Path) -> Any:
    served = Served("tiny", ServeConfig(max_body_kb=8), folder / "feedback.jsonl")
    return make_app(served, InProcess(parts(Endless())))


def fields(schema: Any, path: str) -> tuple[list[str], list[str]]:
    """(those that must be there, all) of a body, as the app itself says."""
    content = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    known = schema["components"]["schemas"][content["$ref"].rpartition("/")[2]]
    return known["required"], list(known["properties"])


@st.composite
def bodies(draw: st.DrawFn, schema: Any, path: str) -> bytes:
    """Mostly right in what must be there, and anything in what may be; now and then no JSON at all."""
    required, every = fields(schema, path)
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=40))
    names = {*required, *draw(st.lists(st.sampled_from(every), max_size=3))}
    names -= {*draw(st.lists(st.sampled_from(every), max_size=1))}
    wrong = draw(st.sampled_from([None, *sorted(names)]))
    body = {name: draw(VALUES if name == wrong else RIGHT.get(name, VALUES)) for name in sorted(names)}
    return json.dumps(body | draw(st.dictionaries(st.text(max_size=5), VALUES, max_size=1))).encode()


def test_no_request_makes_the_server_fail(tmp_path: Path) -> None:
    made = app(tmp_path)
    schema = made.openapi()
    seen: set[int] = set()

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(POSTED))
        body = data.draw(bodies(schema, path))
        reply = web.post(path, content=body, headers={"Content-Type": "application/json"})
        seen.add(reply.status_code)
        assert reply.status_code in (200, 400, 404, 413), (reply.status_code, body)
        if reply.status_code != 200:
            assert reply.json()["error"]["message"]

    with TestClient(made, base_url="http://127.0.0.1") as web:
        ask()
        for path in schema["paths"]:
            for method in ("GET", "PUT", "DELETE"):
                assert web.request(method, path.replace("{name}", "%00..%2f")).status_code < 500
    assert seen >= {200, 400, 404}  # else the bodies were all of one kind


@pytest.mark.parametrize("valid", [True, False])
def test_the_app_keeps_to_its_own_openapi(tmp_path: Path, valid: bool) -> None:
    """Schemathesis makes requests that the schema allows, or does not; status, type and body must be ones it tells."""
    made, statuses = app(tmp_path), Counter[int]()
    schema = schemathesis.openapi.from_asgi("/openapi.json", made, headers=HOST)
    asked = {"model": "tiny", "input": "Where was Ada born?"}
    remembered = TestClient(made, base_url="http://127.0.0.1").post("/v1/responses", json=asked).json()["id"]
    real = {"model": "tiny", "response_id": remembered}

    @schema.hook("flatmap_body")
    def often_of_this_app(_: object, body: Any) -> st.SearchStrategy[Any]:
        """A model and a response that are there, without what this agent never takes: else nearly all is refused."""
        if not isinstance(body, dict):
            return st.just(body)
        taken = {name: real.get(name, value) for name, value in body.items() if name in RIGHT}
        return st.sampled_from([taken, {**body, **{name: real[name] for name in real if name in body}}, body])

    mode = GenerationMode.POSITIVE if valid else GenerationMode.NEGATIVE
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=20 if valid else 8, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(mode))
        def ask(case: schemathesis.Case) -> None:
            response = case.call(headers=HOST)
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        try:
            ask()
        except Unsatisfiable:  # nothing of this request can be wrong
            assert not valid
    assert statuses[200 if valid else 400] > 5  # else the requests were all of one kind


CALLS = {
    "ask": {"question": "Where was Ada born?"},
    "search": {"query": "Ada"},
}
METHODS = ["initialize", "ping", "tools/list", "tools/call", "resources/list", "notifications/initialized", "no/such"]
MCP_PARAMS = VALUES | st.fixed_dictionaries(
    {"name": st.sampled_from([*CALLS, "nothing"]) | SCALARS, "arguments": st.sampled_from([*CALLS.values()]) | VALUES}
)
ENVELOPES = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | SCALARS, "method": st.sampled_from(METHODS) | SCALARS},
    optional={"id": st.integers(0, 9) | SCALARS, "params": MCP_PARAMS, "more": VALUES},
)
ACCEPTS = ["application/json, text/event-stream", "application/json", "*/*", "text/plain"]


def test_no_mcp_request_is_a_server_error(tmp_path: Path) -> None:
    """Envelopes that are right, wrong in a part, lists, no JSON, and too long."""
    pytest.importorskip("mcp")
    statuses = Counter[int]()
    with TestClient(app(tmp_path), base_url="http://127.0.0.1", raise_server_exceptions=False) as web:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            envelope=ENVELOPES | st.lists(ENVELOPES, max_size=2) | VALUES,
            torn=st.integers(0, 9),
            accept=st.sampled_from([*ACCEPTS[:1] * 5, *ACCEPTS]),
            verb=st.sampled_from(["POST"] * 8 + ["GET", "DELETE", "PUT"]),
        )
        @example(envelope={"jsonrpc": "2.0", "id": 1, "method": "ping"}, torn=1, accept=ACCEPTS[0], verb="POST")
        @example(envelope={"jsonrpc": "2.0", "id": 1, "pad": "x" * 9000}, torn=1, accept=ACCEPTS[0], verb="POST")
        def ask(envelope: Any, torn: int, accept: str, verb: str) -> None:
            body = json.dumps(envelope).encode()
            sent = body if torn else body[: len(body) // 2]
            headers = {"Accept": accept, "Content-Type": "application/json"}
            reply = web.request(verb, "/mcp", content=sent, headers=headers)
            statuses[reply.status_code] += 1
            assert reply.status_code < 500, (reply.text, sent)
            if reply.status_code == 200:
                assert reply.json()["jsonrpc"] == "2.0"

        ask()
        assert web.get("/mcp").status_code == 405  # else a stream that stays open
        for tool, arguments in CALLS.items():
            called = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": tool, "arguments": arguments},
            }
            assert web.post("/mcp", json=called, headers={"Accept": ACCEPTS[0]}).status_code == 200
    assert statuses[200]
    assert statuses[400]
    assert statuses[413]
