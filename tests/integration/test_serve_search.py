"""The search app on a real Ray Serve: by handle and by HTTP, over its limits, overloaded, and with a dead replica."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from calibadv.cluster.local_ray import free_ports
from calibadv.cluster.names import app_name
from calibadv.config import load_config
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.build import build_pipeline, origin_of
from calibadv.search.client import RetryPolicy
from calibadv.search.encoder import Encoder, passage_text
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchConfig
from calibadv.search.stored_index import load_or_build
from calibadv.types import Document
from serve.app import start_search, stop_search
from serve.search_client import serve_search
from tests.search.fakes import CORPUS
from workflows.session import served_search

pytestmark = pytest.mark.integration

QUERY = "Where was Anna Berg born?"


def load() -> list[Document]:
    return list(CORPUS[:4])


@dataclass(frozen=True)
class Reply:
    status: int
    text: str


@pytest.fixture(scope="module")
def cluster(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: ARG001
    """A folder for the apps on the Ray that runs."""
    yield tmp_path_factory.mktemp("serve")
    stop_search("search")
    stop_search("lexical")


@pytest.fixture(scope="module")
def url(cluster: Path) -> str:
    (port,) = free_ports(1)
    # Few places, so that a test can fill them.
    config = SearchConfig(http_port=port, max_ongoing_requests=4, max_queued_requests=4)
    start_search(config, load, cluster / "cache")
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def lexical(cluster: Path) -> str:
    # No model to load, so that a replica is back in seconds; one call at a time, so that it is easily overloaded.
    words = SearchConfig(retriever="bm25", reranker="none")
    corpus = cluster / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": d.id, "title": d.title, "text": d.text}) + "\n" for d in load()))
    config = words.but(num_cpus=0.1, max_ongoing_requests=1, max_queued_requests=1)
    start_search(config, corpus, cluster / "cache", "lexical")
    return "lexical"


def fetch(address: str, body: object = None) -> Reply:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=data), timeout=60) as response:
            return Reply(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.read().decode())


def retrieve(url: str, **fields: Any) -> list[list[dict[str, Any]]]:
    reply = fetch(f"{url}/retrieve", fields)
    assert reply.status == 200, reply.text
    result: list[list[dict[str, Any]]] = json.loads(reply.text)["result"]
    return result


def test_a_taken_port_is_named_before_serve_starts(cluster: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(RuntimeError, match=rf"cannot listen on 127.0.0.1:{port} .*choose\s+another http_port"):
            start_search(SearchConfig(http_port=port), load, cluster / "cache")


def test_a_missing_app_and_a_missing_corpus_are_named(cluster: Path) -> None:
    with pytest.raises(RuntimeError, match="no search app 'nowhere' runs on this Ray cluster"):
        serve_search("nowhere")
    with pytest.raises(FileNotFoundError, match="prepare it with"):
        start_search(SearchConfig(), cluster / "none.jsonl", cluster / "cache")


def test_search_r1_request(url: str) -> None:
    (first, second) = retrieve(url, queries=[QUERY, "capital of France"], topk=2, return_scores=True)
    assert first[0]["document"]["id"] == "d3"
    assert [entry["document"]["id"] for entry in second] == ["d0", "d1"]
    assert second[0]["document"]["contents"] == '"Paris"\nParis is the capital of France.'
    assert second[0]["score"] > second[1]["score"]


@pytest.mark.parametrize("shape", ["search_r1", "calibadv"])
async def test_our_http_client_finds_what_a_handle_finds(url: str, shape: str) -> None:
    found = await http_search(SearchConfig(url=f"{url}/retrieve").but(url_shape=shape))(QUERY)
    assert found == await serve_search("search")(QUERY)


def test_request_with_a_reranker(url: str) -> None:
    (documents,) = retrieve(url, queries=[QUERY], topk_retrieval=4, topk_rerank=1, return_scores=False, not_sort=True)
    assert [document["id"] for document in documents] == ["d3"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"queries": ["x" * 3000]}, 400, "query 0 has 3000 characters; the limit is 2048"),
        ({"queries": ["x"] * 2000}, 400, "2000 queries in one call; the limit is 1024"),
        ({"queries": ["x"], "topk": 1000}, 400, "the limit is 100"),
        ({"queries": ["x"], "topk": 0}, 400, "top_k = 0; expected at least 1"),
        (b"not json", 400, "the body is not JSON"),
        (b'{"queries": ["' + b"x" * 5_000_000 + b'"]}', 413, "the body is over 4194304 bytes"),
    ],
)
def test_what_is_over_a_limit_is_refused_by_name(url: str, body: object, status: int, message: str) -> None:
    reply = fetch(f"{url}/retrieve", body)
    assert reply.status == status
    assert message in reply.text


def test_healthz_and_unknown_paths(url: str) -> None:
    assert fetch(f"{url}/healthz") == Reply(200, "ok\n")
    assert fetch(f"{url}/other").status == 404


def test_a_full_queue_is_503(url: str) -> None:
    def slow(caller: int) -> int:
        queries = [f"{caller} {query} " + "word " * 100 for query in range(16)]
        return fetch(f"{url}/retrieve", {"queries": queries}).status

    with ThreadPoolExecutor(20) as callers:
        statuses = list(callers.map(slow, range(20)))
    assert set(statuses) == {200, 503}
    assert fetch(f"{url}/healthz").status == 200


@pytest.mark.usefixtures("url")
def test_an_actor_searches_by_handle() -> None:
    @ray.remote(num_cpus=0.1)
    class Rollouts:
        async def run(self, queries: list[str]) -> list[list[str]]:
            search = serve_search("search")
            found = await asyncio.gather(*(search(query) for query in queries))
            return [[document.id for document in documents] for documents in found]

    rollouts = Rollouts.remote()
    queries = [QUERY, "capital of Germany", "x" * 5000, "\ud800"]  # over-long and broken: bad queries, no errors
    found = ray.get(rollouts.run.remote(queries))
    assert [found[0][0], found[1][0]] == ["d3", "d1"]
    assert [len(ids) for ids in found] == [3, 3, 3, 3]
    ray.kill(rollouts)


@pytest.mark.usefixtures("url")
async def test_an_index_in_shards_finds_what_a_whole_one_finds_and_survives_a_lost_shard(cluster: Path) -> None:
    encoder, settings = Encoder(SearchConfig()), SearchConfig(reranker="none", cache_size=0)
    documents = load()
    folder = load_or_build(
        lambda: encoder.encode_passages([passage_text(document) for document in documents], tokens=False).vectors,
        origin_of(documents, settings, encoder),
        settings.but(index="fp16"),
        cluster / "cache",
        rows_a_piece=1,
    )
    ready = settings.but(faiss_index=str(folder))
    start_search(ready.but(shards=2, shard_cpus=0.1, num_cpus=0.1), load, cluster / "cache", "sharded")
    whole = build_pipeline(documents, ready, cluster / "cache", encoder=encoder)
    search = serve_search("sharded", RetryPolicy(timeout_s=60.0))
    queries = [QUERY, "capital of Germany"]
    expected = [[document.id for document in found] for found in whole.search_batch(queries)]
    assert [[document.id for document in await search(query)] for query in queries] == expected
    lost = next(name for name in _replicas("sharded") if "index-1" in name)
    ray.kill(ray.get_actor(lost, namespace="serve"))
    assert [document.id for document in await search(QUERY)] == expected[0]
    assert lost not in _replicas("sharded")
    stop_search("sharded")


@pytest.mark.usefixtures("url")  # an app without HTTP, started first, would start Serve without a proxy
def test_why_a_replica_cannot_start_is_named(cluster: Path) -> None:
    config = SearchConfig(retriever="bm25", reranker="none", num_cpus=0.1)
    with pytest.raises(RuntimeError, match=r"(?s)'empty' did not start: .*the corpus has 0 documents"):
        start_search(config, list, cluster / "cache", "empty")


@contextmanager
def search_of_a_run(folder: Path, town: str) -> Iterator[str]:
    """The app of the run `calibadv-seed0` in a folder of its own, whose corpus knows one town."""
    folder.mkdir()
    corpus = folder / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": town, "title": "Anna Berg", "text": f"She was born in {town}."}) + "\n")
    search = {"search.retriever": "bm25", "search.reranker": "none", "search.num_cpus": 0.1}
    config = load_config(None, {"run.folder": folder, "run.cache": folder, **search})
    app = app_name("search", config.run.folder / config.run_name)
    with served_search(config, corpus, app, stop=True):
        yield app


async def test_two_runs_of_one_name_have_each_an_app_and_the_first_to_end_takes_its_own(cluster: Path) -> None:
    async def found(app: str) -> list[str]:
        return [document.id for document in await serve_search(app, RetryPolicy(patience_s=10.0))(QUERY)]

    with search_of_a_run(cluster / "me", "Oslo") as mine:
        with search_of_a_run(cluster / "you", "Bergen") as yours:
            assert (await found(mine), await found(yours)) == (["Oslo"], ["Bergen"])
        assert await found(mine) == ["Oslo"]


async def test_an_overloaded_app_is_retried_until_all_are_answered(
    lexical: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "calibadv.search.client")
    search = serve_search(lexical, RetryPolicy(base_delay_s=0.1, max_delay_s=1.0))
    found = await asyncio.gather(*(search(f"Oslo {i}") for i in range(12)))
    assert [[document.id for document in documents] for documents in found] == [["d3"]] * 12
    assert "BackPressureError" in caplog.text  # refused, and tried again


async def test_a_killed_replica_is_replaced_and_the_search_answered(lexical: str) -> None:
    search = serve_search(lexical, RetryPolicy(timeout_s=30.0))
    assert [document.id for document in await search("Germany")] == ["d1"]
    (name,) = _replicas(lexical)
    ray.kill(ray.get_actor(name, namespace="serve"))
    assert [document.id for document in await search("France")] == ["d0"]
    assert _replicas(lexical) != [name]


async def test_an_app_that_is_gone_is_search_failed(lexical: str) -> None:
    search = serve_search(lexical, RetryPolicy(timeout_s=5.0, patience_s=0.1))
    stop_search(lexical)
    with pytest.raises(SearchFailed, match=r"no answer in \d attempts"):
        await search("Oslo")


def _replicas(app: str) -> list[str]:
    names = [entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True)]
    return [name for name in names if name.startswith(f"SERVE_REPLICA::{app}#")]
