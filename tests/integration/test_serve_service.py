"""The search service without a cluster: readiness, the token, the config files' builder."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from starlette.requests import Request

from calibadv.cluster.local_ray import free_ports
from calibadv.search.build import build_pipeline, origin_of
from calibadv.search.encoder import passage_text
from calibadv.search.pipeline import SearchPipeline
from calibadv.search.reading import read_search
from calibadv.search.settings import SearchConfig
from calibadv.search.stored_index import load_or_build
from calibadv.types import FloatArray
from serve.access import authorised
from serve.application import search_application
from serve.builder import SearchArgs, search_app
from serve.retriever import PROOF_AGE_S, STUCK_AFTER_S, Query, SearchService, pipeline_of
from serve.shards import IndexShard, ShardUnavailable, check_shards, nearest_of_shards
from tests.search.fakes import CORPUS, WordEncoder

ROOT = Path(__file__).parents[2]
LEXICAL = SearchConfig(retriever="bm25", reranker="none")


class Moody:
    """A pipeline that raises what it is told to."""

    def __init__(self, pipeline: SearchPipeline) -> None:
        self._pipeline, self.error = pipeline, None

    def search_batch(self, *asked: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self._pipeline.search_batch(*asked)

    def check_top_k(self, *asked: Any) -> None:
        self._pipeline.check_top_k(*asked)


@dataclass
class Replica:
    """A service with the pipeline that it asks, and the clock that it reads."""

    service: SearchService
    pipeline: Moody
    seconds: float


def replica(folder: Path, token_env: str = "") -> Replica:
    config = LEXICAL.but(max_batch_size=8, batch_wait_s=0.0, token_env=token_env)
    there: Any = Replica(None, None, 1000.0)  # type: ignore[arg-type]

    def build(*given: Any) -> Any:
        there.pipeline = Moody(pipeline_of(*given))
        return there.pipeline

    there.service = SearchService(lambda: CORPUS, config, str(folder), build=build, clock=lambda: there.seconds)
    return there


def request(method: str, path: str, body: bytes = b"", token: str = "") -> Request:
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
    return Request(scope, receive)


async def status(search: SearchService) -> int:
    return (await search(request("GET", "/healthz"))).status_code


async def test_it_is_ready_when_it_answers_and_not_when_it_cannot(tmp_path: Path) -> None:
    one = replica(tmp_path)
    assert await status(one.service) == 200
    one.pipeline.error = RuntimeError("out of memory")
    assert await status(one.service) == 200  # it answered a moment ago
    one.seconds += PROOF_AGE_S
    reply = await one.service(request("GET", "/healthz"))
    assert (reply.status_code, bytes(reply.body)) == (503, b"not ready\n")
    with pytest.raises(RuntimeError, match="out of memory"):
        await one.service.check_health()
    one.pipeline.error = None
    await one.service.check_health()
    assert await status(one.service) == 200


async def test_one_that_ends_answers_the_calls_under_way_and_no_more(tmp_path: Path) -> None:
    asked, answering = threading.Event(), threading.Event()

    class Held(Moody):
        def search_batch(self, *given: Any) -> Any:
            if given[0] != ["warm up"]:
                asked.set()
                answering.wait(60)
            return super().search_batch(*given)

    def build(*given: Any) -> Any:
        return Held(pipeline_of(*given))

    (port,) = free_ports(1)
    service = SearchService(lambda: CORPUS, LEXICAL.but(http_port=port), str(tmp_path), build=build)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as web:
        call = asyncio.create_task(web.get(url := f"http://127.0.0.1:{port}/healthz"))
        await asyncio.to_thread(asked.wait, 60)
        ended = service.__del__()  # as Serve calls it
        assert ended is not None
        assert service.__del__() is None  # as Python does
        ending = asyncio.ensure_future(ended)
        await asyncio.sleep(0)
        answering.set()
        assert (await call).text == "ok\n"
        await ending
        with pytest.raises(httpx.ConnectError):
            await web.get(url)


async def test_each_query_of_a_batch_is_searched_as_it_asks(tmp_path: Path) -> None:
    def build(*_: Any) -> SearchPipeline:
        return build_pipeline(CORPUS, LEXICAL.but(reranker="late"), tmp_path, encoder=WordEncoder())

    service, text = SearchService(lambda: CORPUS, LEXICAL, str(tmp_path), build=build), "Norway film Anna"
    asked = [
        Query(text),
        Query(text, retrieval_order=True),
        Query(text, top_k=1),
        Query(text, top_k_retrieve=2, top_k=2),
    ]
    found = await service.search_batch(asked)
    # BM25: a word that one document has counts for more; the late reranker counts the query's words in a document.
    expected = [["d3", "d2", "d4"], ["d3", "d4", "d2"], ["d3"], ["d3", "d4"]]
    assert [[document.id for document in documents] for documents in found] == expected


async def test_a_failed_search_ends_readiness_at_once(tmp_path: Path) -> None:
    one = replica(tmp_path)
    await one.service.check_health()
    one.pipeline.error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError):
        await one.service.search_batch([Query("Oslo")])
    assert await status(one.service) == 503


async def test_a_lost_shard_is_not_ready_but_no_reason_to_replace_this_replica(tmp_path: Path) -> None:
    one = replica(tmp_path)
    one.pipeline.error = ShardUnavailable("shard 1 is gone")
    await one.service.check_health()
    assert await status(one.service) == 503


async def test_a_slow_batch_is_no_illness_until_it_is_stuck(tmp_path: Path) -> None:
    one = replica(tmp_path)
    one.pipeline.error = RuntimeError("stuck")
    one.service._batches = 1
    await one.service.check_health()
    one.seconds += STUCK_AFTER_S
    with pytest.raises(RuntimeError, match="stuck"):
        await one.service.check_health()


async def test_with_a_token_only_its_owner_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="token_env = 'NO_SUCH_TOKEN', but this process has no such"):
        replica(tmp_path, "NO_SUCH_TOKEN")
    monkeypatch.setenv("SEARCH_TOKEN", "s3cret")
    search = replica(tmp_path, "SEARCH_TOKEN").service
    assert (await search(request("POST", "/retrieve", b"{}"))).status_code == 401
    assert (await search(request("POST", "/retrieve", b"{}", "wrong"))).status_code == 401
    assert (await search(request("POST", "/retrieve", b"{}", "s3cret"))).status_code == 400  # let in, and its body read
    assert (await search(request("GET", "/healthz"))).status_code == 200


def test_authorisation_by_hand() -> None:
    assert authorised("", "")
    assert authorised("Bearer t", "t")
    assert not any(authorised(header, "t") for header in ("", "t", "Bearer t ", "bearer t", "Bearer \udc80"))


@pytest.mark.parametrize("name", ["search.yaml", "search-wiki18.yaml"])
def test_the_config_files_are_what_the_builder_takes(name: str) -> None:
    config = yaml.safe_load((ROOT / "serve" / name).read_text())
    (app,) = config["applications"]
    assert app["import_path"] == "serve.builder:search_app"
    assert config["http_options"]["host"] == "127.0.0.1"
    read_search(SearchArgs, app["args"])  # refuses what it does not know


def test_the_builder_deploys_what_its_args_say() -> None:
    app = search_app({"corpus": str(ROOT / "serve" / "search.yaml"), "num_cpus": 2, "max_ongoing_requests": 7})
    deployment = app._bound_deployment
    assert deployment.ray_actor_options["num_cpus"] == 2
    assert deployment.max_ongoing_requests == 7
    with pytest.raises(ValueError, match=r"unknown key 'retreiver' \(did you mean 'retriever'\?\)"):
        search_app({"corpus": "c", "retreiver": "dense"})


class Shard:
    """A Serve handle of one `IndexShard` in this process; `error` is what its answer raises."""

    def __init__(self, config: SearchConfig, shard: int, error: Exception | None = None) -> None:
        self._shard = IndexShard(config, shard)
        self._error = error
        self.nearest = self

    def remote(self, vectors_BD: FloatArray, k: int) -> Any:
        def result(timeout_s: float) -> Any:
            assert timeout_s > 0
            if self._error is not None:
                raise self._error
            return asyncio.run(self._shard.nearest(vectors_BD, k))

        return SimpleNamespace(result=result)


def in_pieces(folder: Path, encoder: WordEncoder) -> SearchConfig:
    settings = SearchConfig(reranker="none", cache_size=0)
    vectors = encoder.encode_passages([passage_text(document) for document in CORPUS]).vectors
    origin = origin_of(CORPUS, settings, encoder)
    index = load_or_build(lambda: vectors, origin, settings, folder, rows_a_piece=1)
    return settings.but(faiss_index=str(index))


def test_shards_together_find_what_one_index_finds(tmp_path: Path) -> None:
    encoder = WordEncoder()
    settings = in_pieces(tmp_path, encoder)
    handles = [Shard(settings.but(shards=3), shard) for shard in range(3)]
    nearest = nearest_of_shards(handles, CORPUS, settings, encoder)
    sharded = build_pipeline(CORPUS, settings, tmp_path, encoder=encoder, nearest=nearest)
    whole = build_pipeline(CORPUS, settings, tmp_path, encoder=encoder)
    queries = ["capital of France", "film director born in Oslo"]
    assert sharded.search_batch(queries, 5) == whole.search_batch(queries, 5)
    assert [documents[0].id for documents in sharded.search_batch(queries)] == ["d0", "d3"]


def test_no_answer_is_made_of_some_shards_only(tmp_path: Path) -> None:
    encoder = WordEncoder()
    settings = in_pieces(tmp_path, encoder)
    two = settings.but(shards=2)
    lost = Shard(two, 1, TimeoutError("no answer in 60 s"))
    nearest = nearest_of_shards([Shard(two, 0), lost], CORPUS, settings, encoder)
    with pytest.raises(ShardUnavailable, match="a shard of the index gave no answer: TimeoutError: no answer in 60 s"):
        nearest(encoder.encode_queries(["Oslo"]).vectors, 3)


def test_shards_of_another_corpus_are_refused(tmp_path: Path) -> None:
    encoder = WordEncoder()
    settings = in_pieces(tmp_path, encoder)
    with pytest.raises(ValueError, match="does not fit: corpus"):
        nearest_of_shards([], CORPUS[::-1], settings, encoder)
    with pytest.raises(ValueError, match="6 shards of an index of 5 pieces"):
        check_shards(settings.but(shards=6))


def test_shards_without_an_index_in_pieces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shards = 2 need an index in pieces; faiss_index = '' is no folder"):
        search_application(LEXICAL.but(shards=2), lambda: CORPUS, tmp_path)
