"""Requests of any shape, made from the app's own OpenAPI: each gets an answer or a refusal in words, and none a 500."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
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
