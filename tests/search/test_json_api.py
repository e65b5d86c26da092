"""Search engines by their JSON APIs, over a real HTTP server: what is sent, what is read, and what is a failure."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from qdrant_client import QdrantClient, models

from calibadv.config import ConfigError, load_config, to_toml
from calibadv.data.corpus import passage_id
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryPolicy
from calibadv.search.json_api import SHIPPED, api_of
from calibadv.search.recorded import engine_of
from calibadv.search.remote import engine_dialect, engine_documents, http_search, query_vector
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from tests.extend_page import example

OSLO, BERGEN = Document("1", "Oslo", "A town.", 2.5), Document("2", "Bergen", "Another.", 1.5)
ONCE = RetryPolicy(timeout_s=60.0, patience_s=0.0)
QUICK = RetryPolicy(timeout_s=60.0, patience_s=60.0, base_delay_s=0.01, max_delay_s=0.02)

# As the engines' own pages have them.
ANSWERS: dict[str, Any] = {
    "searxng": {
        "query": "oslo",
        "number_of_results": 0,
        "results": [
            {"url": "1", "title": "Oslo", "content": "A town.", "engine": "wikipedia", "score": 2.5, "category": "g"},
            {"url": "2", "title": "Bergen", "content": "Another.", "engines": ["bing"], "score": 1.5},
        ],
        "answers": [],
        "unresponsive_engines": [["brave", "too many requests"]],
    },
    "opensearch": {
        "took": 2,
        "timed_out": False,
        "_shards": {"total": 5, "successful": 5, "skipped": 0, "failed": 0},
        "hits": {
            "total": {"value": 2, "relation": "eq"},
            "max_score": 2.5,
            "hits": [
                {"_index": "w", "_id": "1", "_score": 2.5, "_source": {"title": "Oslo", "text": "A town."}},
                {"_index": "w", "_id": "2", "_score": 1.5, "_source": {"title": "Bergen", "text": "Another."}},
            ],
        },
    },
    "qdrant": {
        "result": {
            "points": [
                {"id": 1, "version": 3, "score": 2.5, "payload": {"title": "Oslo", "text": "A town."}},
                {"id": 2, "version": 3, "score": 1.5, "payload": {"title": "Bergen", "text": "Another."}},
            ]
        },
        "status": "ok",
        "time": 0.0003,
    },
}


@dataclass
class Asked:
    method: str
    path: str
    parameters: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """Gives its replies in order, the last one for good: (status, body, headers), or a function that may wait."""

    replies: list[Any] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(sent) if sent else None
            state.asked.append(Asked(self.command, parts.path, parse_qs(parts.query), headers, body))
            reply = state.replies[min(len(state.asked), len(state.replies)) - 1]
            status, content, more = reply() if callable(reply) else reply
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **more}.items():
                self.send_header(name, value)
            with contextlib.suppress(ConnectionError):  # a client that waited long enough
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.url = f"http://127.0.0.1:{listening.server_port}"
    yield state
    listening.shutdown()
    listening.server_close()


def ok(body: Any) -> tuple[int, Any, dict[str, str]]:
    return 200, body, {}


def settings(server: Server, shape: str, path: str = "/find", **more: Any) -> SearchConfig:
    return SearchConfig(url=f"{server.url}{path}", top_k=2).but(url_shape=shape, **more)


# ---- what is sent and read -------------------------------------------------------------------------------------------


async def test_searxng(server: Server) -> None:
    server.replies = [ok(ANSWERS["searxng"])]
    assert await http_search(settings(server, "searxng", "/search"), ONCE)('who is "Ada" & {k}?') == (OSLO, BERGEN)
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("GET", "/search", None)
    assert asked.parameters == {"q": ['who is "Ada" & {k}?'], "format": ["json"]}


async def test_opensearch_and_elasticsearch(server: Server) -> None:
    server.replies = [ok(ANSWERS["opensearch"])]
    assert await http_search(settings(server, "opensearch", "/wiki/_search"), ONCE)('"oslo"') == (OSLO, BERGEN)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/wiki/_search")
    assert asked.body == {
        "size": 2,
        "query": {"multi_match": {"query": '"oslo"', "fields": ["title", "text"]}},
    }


async def test_qdrant_is_asked_by_the_query_s_vector(server: Server) -> None:
    server.replies = [ok(ANSWERS["qdrant"])]
    config = settings(server, "qdrant", "/collections/wiki/points/query")
    assert await http_search(config, ONCE)("oslo") == (OSLO, BERGEN)
    (asked,) = server.asked
    vector = asked.body.pop("query")
    assert asked.body == {"limit": 2, "with_payload": True}
    assert len(vector) == 384  # of MiniLM
    assert sum(number**2 for number in vector) == pytest.approx(1, abs=1e-4)


async def test_qdrant_s_own_client_takes_the_request_and_its_local_mode_answers_it(server: Server) -> None:
    """Request and answer are the client's own models, made for the server's API; the points are searched in process.

    No server of Qdrant's can be installed here: what stands between is this module's HTTP.
    """
    vector, local = query_vector(SearchConfig()), QdrantClient(":memory:")
    size = models.VectorParams(size=384, distance=models.Distance.COSINE)
    local.create_collection("wiki", vectors_config=size)
    texts = ["Oslo is the capital of Norway.", "Ada Lovelace was born in London.", "Rome was not built in a day."]
    payloads = [{"title": text.split()[0], "text": text} for text in texts]
    points = [models.PointStruct(id=i, vector=vector(p["text"]), payload=p) for i, p in enumerate(payloads)]
    local.upsert("wiki", points)

    def answer() -> tuple[int, Any, dict[str, str]]:
        asked = models.QueryRequest.model_validate(server.asked[-1].body, extra="forbid")
        found = local.query_points("wiki", asked.query, limit=asked.limit, with_payload=asked.with_payload)
        whole = models.InlineResponse20022(status="ok", time=0.0, result=found)
        return ok(whole.model_dump(mode="json", exclude_none=True))

    server.replies = [answer]
    search = http_search(settings(server, "qdrant", "/collections/wiki/points/query"), ONCE)
    first, second = await search("What is the capital of Norway?")
    assert (first.id, first.title, first.text) == ("0", "Oslo", texts[0])
    assert 1 >= first.score > second.score
    assert [document.id for document in await search("Where was Ada Lovelace born?")][:1] == ["1"]


async def test_an_engine_of_one_s_own_mapping(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a recipe has it, with a key in a header, one in a parameter and one in the body."""
    monkeypatch.setenv("FIND_KEY", "s3cret")
    recipe = f"""
[search]
url = "{server.url}/v1/web"
url_shape = "json"
top_k = 2

[search.http]
parameters = {{ cx = "$FIND_KEY" }}
headers = {{ "X-Api-Key" = "$FIND_KEY", Accept = "application/json" }}
results = "web.0.pages"
title = "name"
text = "snippets"

[search.http.body]
q = "{{query}} site:wikipedia.org"
num = "{{k}}"
options = {{ rewrite = false, langs = ["en", "{{k}} of {{query}}"], api_key = "$FIND_KEY" }}
price = "$$5"
author = "Ada"
"""
    config = load_config(None, tomllib.loads(recipe))
    pages = [{"name": "Oslo", "snippets": ["A town.", "On a fjord."]}, {"name": "", "snippets": []}, {"name": "B"}]
    server.replies = [ok({"web": [{"pages": pages}]})]
    found = await http_search(config.search, ONCE)("oslo")
    text = "A town. On a fjord."
    assert found == (Document(passage_id("Oslo", text), "Oslo", text), Document(passage_id("B", ""), "B", ""))
    (asked,) = server.asked
    assert asked.body == {
        "q": "oslo site:wikipedia.org",
        "num": 2,
        "options": {"rewrite": False, "langs": ["en", "2 of oslo"], "api_key": "s3cret"},
        "price": "$5",
        "author": "Ada",
    }
    assert asked.parameters == {"cx": ["s3cret"]}
    assert (asked.headers["x-api-key"], asked.headers["accept"]) == ("s3cret", "application/json")
    assert "s3cret" not in to_toml(config)
    assert load_config(None, tomllib.loads(to_toml(config))) == config


async def test_the_page_s_example_asks_and_reads_an_engine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIND_KEY", "s3cret")
    config = load_config(None, tomllib.loads(example("A search engine's JSON API", "toml"))).search
    server.replies = [ok({"web": {"results": [{"url": "1", "title": "Oslo", "description": "A town."}]}})]
    assert await http_search(config.but(url=server.url), ONCE)("oslo") == (Document("1", "Oslo", "A town."),)
    (asked,) = server.asked
    assert asked.parameters == {"q": ["oslo"], "count": ["3"]}
    assert asked.headers["x-subscription-token"] == "s3cret"


async def test_a_shipped_mapping_takes_other_names_of_fields_and_a_token(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ES_TOKEN", "s3cret")
    answer = json.loads(json.dumps(ANSWERS["opensearch"]).replace('"text":', '"passage":'))
    server.replies = [ok(answer)]
    config = settings(server, "opensearch", http={"text": "_source.passage"}, token_env="ES_TOKEN")
    assert await http_search(config, ONCE)("oslo") == (OSLO, BERGEN)
    assert server.asked[0].headers["authorization"] == "Bearer s3cret"
    assert server.asked[0].body["size"] == 2


# ---- what is a failure, and tried again ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 404])
async def test_a_busy_engine_is_asked_again(server: Server, status: int) -> None:
    server.replies = [(status, b"busy", {}), (status, b"busy", {}), ok(ANSWERS["searxng"])]
    assert await http_search(settings(server, "searxng"), QUICK)("oslo") == (OSLO, BERGEN)
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_query_that_is_refused_is_not_asked_again(server: Server, status: int) -> None:
    server.replies = [(status, b"no such key", {})]
    with pytest.raises(SearchFailed, match=rf"the search engine refused 'oslo': .*answered {status}: no such key"):
        await http_search(settings(server, "searxng"), QUICK)("oslo")
    assert len(server.asked) == 1


async def test_an_engine_that_says_for_how_long_is_left_alone_for_so_long(server: Server) -> None:
    server.replies = [(429, b"slow down", {"retry-after": "1"}), ok(ANSWERS["searxng"])]
    begun_s = time.monotonic()
    assert len(await http_search(settings(server, "searxng"), QUICK)("oslo")) == 2
    assert time.monotonic() - begun_s >= 1.0


async def test_an_engine_that_does_not_answer_in_time_is_a_failed_search(server: Server) -> None:
    ended = threading.Event()

    def wait() -> tuple[int, Any, dict[str, str]]:
        ended.wait(60)
        return ok(ANSWERS["searxng"])

    server.replies = [wait]
    with pytest.raises(SearchFailed, match=r"in 1 attempts of at most 0\.2 s"):
        await http_search(settings(server, "searxng"), RetryPolicy(timeout_s=0.2, patience_s=0.0))("oslo")
    ended.set()


def but(shape: str, change: Callable[[Any], object]) -> Any:
    answer = json.loads(json.dumps(ANSWERS[shape]))
    change(answer)
    return answer


@pytest.mark.parametrize(
    ("shape", "answer", "said"),
    [
        ("searxng", b"<html>log in</html>", "Expecting value"),
        ("searxng", {"error": "no"}, r"expected a list at 'results'"),
        ("searxng", {"results": {"0": "a"}}, r"expected a list at 'results'"),
        ("searxng", {"results": [{"url": "1", "title": "Oslo", "body": "x"}]}, "no result has a text at 'content'"),
        ("searxng", {"results": ["Oslo"]}, "no result has a text at 'content'"),
        ("searxng", {"results": [{"url": {}, "title": "a", "content": "b"}]}, "identity at 'url' is {}"),
        ("searxng", {"results": [{"url": "1", "title": "a", "content": {"b": 1}}]}, "expected a text"),
        ("searxng", but("searxng", lambda a: a["results"].clear()), "not whole: unresponsive_engines is .*brave"),
        ("opensearch", but("opensearch", lambda a: a.update(timed_out=True)), "not whole: timed_out is True"),
        ("opensearch", but("opensearch", lambda a: a["_shards"].update(failed=2)), r"_shards\.failed is 2, expected 0"),
        ("opensearch", {"error": {"type": "index_not_found_exception"}}, "expected a list at 'hits.hits'"),
        ("qdrant", but("qdrant", lambda a: a.update(status={"error": "timeout"})), "not whole: status is"),
    ],
)
def test_a_malformed_or_partial_answer_is_no_answer(shape: str, answer: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        engine_documents(json.loads(answer) if isinstance(answer, bytes) else answer, api_of(shape, {}))


async def test_a_malformed_answer_is_a_failed_search_and_may_be_a_better_one_next_time(server: Server) -> None:
    server.replies = [ok({"error": "no"})]
    with pytest.raises(SearchFailed, match="expected a list at 'results'"):
        await http_search(settings(server, "searxng"), ONCE)("oslo")
    server.replies = [ok({"error": "no"}), ok({"error": "no"}), ok(ANSWERS["searxng"])]
    assert len(await http_search(settings(server, "searxng"), QUICK)("oslo")) == 2


@pytest.mark.parametrize("shape", [shape for shape in SHIPPED if shape in ANSWERS])
def test_no_results_are_an_answer(shape: str) -> None:
    none = {"results": [], "unresponsive_engines": []}
    none |= {"hits": {"hits": []}, "timed_out": False, "result": {"points": []}, "status": "ok"}
    assert engine_documents(none, api_of(shape, {})) == ()


# ---- what a recipe may say -------------------------------------------------------------------------------------------

API = {"results": "r", "text": "t", "body": {"q": "{query}"}}


@pytest.mark.parametrize(
    ("shape", "http", "said"),
    [
        ("json", {}, "http.results and http.text must say where"),
        ("json", {**API, "body": {"q": "query"}}, "nothing of the request is the query"),
        ("json", {**API, "txt": "t"}, r"there is no http\.txt \(did you mean 'text'\?\); there are method, "),
        ("json", {**API, "method": "PUT"}, r"http\.method = 'PUT': Input should be 'GET' or 'POST'"),
        (
            "json",
            {**API, "headers": {"Authorization": "Bearer abc"}},
            r'Authorization = "\$MY_KEY" or "Bearer \$MY_KEY"',
        ),
        ("searxng", {"headers": {"X-API-Key": "abc"}}, r"http\.headers\.X-API-Key may be a secret"),
        ("json", {**API, "parameters": {"api_key": "abc"}}, r"http\.parameters\.api_key may be a secret"),
        ("json", {**API, "body": {"q": "{query}", "api_key": "abc"}}, r"http\.body\.api_key may be a secret"),
        (
            "json",
            {**API, "body": {"q": "{query}", "by": [{"token": "abc"}]}},
            r"http\.body\.by\.0\.token may be a secret",
        ),
        ("search_r1", API, "with url_shape = 'search_r1': expected one of"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_in_one_line(shape: str, http: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(None, {"search": {"url": "http://127.0.0.1:9", "url_shape": shape, "http": http}})
    assert "\n" not in str(caught.value)


def test_a_key_that_is_not_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    config = SearchConfig(url="http://h", url_shape="json", http={**API, "headers": {"X-Key": "$NO_SUCH_KEY"}})
    assert config.sends_secret
    assert not SearchConfig(url="http://h", url_shape="json", http=API).sends_secret
    with pytest.raises(ValueError, match=r"http\.headers names \$NO_SUCH_KEY, but there is no such environment"):
        http_search(config)


async def test_a_request_is_filled_once() -> None:
    """What the policy writes is never a template, nor JSON of its own."""
    config = SearchConfig(url="http://h", url_shape="json", http={**API, "body": {"q": "{query}", "n": "{query} {k}"}})
    sent = await engine_dialect(config).request('{k} {vector} "}')
    assert sent == {"json": {"q": '{k} {vector} "}', "n": '{k} {vector} "} 3'}}


def test_the_mapping_is_part_of_the_engine() -> None:
    config = SearchConfig(url="http://h", url_shape="json", http=API)
    assert engine_of(config, "") != engine_of(config.but(http={**API, "body": {"q": "{query} wiki"}}), "")
    qdrant = SearchConfig(url="http://h", url_shape="qdrant")
    assert engine_of(qdrant, "") != engine_of(qdrant.but(query_prefix="query: "), "")
    searxng = SearchConfig(url="http://h", url_shape="searxng")
    assert engine_of(searxng, "") == engine_of(searxng.but(query_prefix="query: "), "")
