"""What rollouts make of a search tool in trouble: down, slow, raising. Nothing is scored that was not answered.

Every test rolls the same questions with the same fake policy, whose answers are right where it has read the right
passage and wrong where it has not: a fault that reached the policy as text, or as no documents, would show in what it
answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.group import GroupRoller, RolledGroup
from calibadv.rollout.plans import chains
from calibadv.rollout.protocols import Generation, Sampling, SearchFn, StopReason
from calibadv.search.client import RetryingSearch, RetryPolicy
from calibadv.search.remote import http_search
from calibadv.search.rerank import NoReranker
from calibadv.search.settings import SearchConfig
from calibadv.types import Document, IntArray, Question
from serve.app import start_search, stop_search
from serve.search_client import serve_search
from serve.wire import parse_retrieve, retrieve_response
from tests.rollout.scripted import TOKENIZER, spelled

pytestmark = pytest.mark.integration

logger = logging.getLogger(__name__)

TOWNS = ("Oslo", "Paris", "Berlin", "Vienna", "Madrid", "Lisbon")
NAMES = ("Ada", "Bruno", "Clara", "Dmitri", "Elena", "Felix")
QUESTIONS = [
    Question(f"q{i}", f"Where was {name} born?", (town,))
    for i, (name, town) in enumerate(zip(NAMES, TOWNS, strict=True))
]
CORPUS = [
    Document(f"d{i}", name, f"{name} was born in {town}.")
    for i, (name, town) in enumerate(zip(NAMES, TOWNS, strict=True))
]
SETTINGS = SearchConfig(retriever="bm25", reranker="none", top_k=1, cache_size=0, num_cpus=0.1)
PATIENT = RetryPolicy(timeout_s=30.0, patience_s=60.0)
QUICK = RetryPolicy(patience_s=30.0, base_delay_s=0.05, max_delay_s=1.0)  # a run's own, five times as fast
SAMPLES = 2
SLOW_S = 1.5  # every other batch of a slow replica
ILL = "the reranker is out of memory"
CLIENT = "calibadv.search.client"  # says each failed attempt at DEBUG


async def policy(prompt_ids: IntArray, sampling: Sampling) -> Generation:  # noqa: ARG001 (a `GenerateFn`'s arguments)
    """Searches for who is asked after, then answers with the town that it reads; "nowhere" if it reads none."""
    text = TOKENIZER.decode(prompt_ids)
    question, _, seen = text.partition("</search>")
    name = next(name for name in NAMES if name in question)
    town = next((town for town in TOWNS if f"{name} was born in {town}" in seen), "nowhere")
    said = f"<answer> {town} </answer>" if seen else f"<search> {name} born </search>"
    ids = spelled(f"<think> so </think>{said}")
    return Generation(ids, ids * 0.0, StopReason.TAG)


async def rolled(search: SearchFn, infra_retries: int = 0) -> list[RolledGroup]:
    roller = GroupRoller(
        TagsDialogue(TOKENIZER, "", "Q {question}\n"), search, chains(SAMPLES), run_seed=1, infra_retries=infra_retries
    )
    return await asyncio.gather(*(roller.train(question, policy, step=0, version=0) for question in QUESTIONS))


async def undisturbed() -> list[RolledGroup]:
    """What comes of a search tool without faults."""

    async def search(query: str) -> tuple[Document, ...]:
        return tuple(document for document in CORPUS if document.title == query.split()[0])

    return await rolled(search)


async def check(groups: Sequence[RolledGroup], lost: Sequence[str] = ()) -> None:
    """Every question has come to what it comes to without faults, but the `lost`, which have come to nothing."""
    for question, found, expected in zip(QUESTIONS, groups, await undisturbed(), strict=True):
        for document in (found.documents or {}).values():
            assert document.text in {known.text for known in CORPUS}  # never an error's text
        if question.id in lost:
            assert found.group is None  # nothing of it is scored
            assert found.infra_failed > 0
            continue
        assert found.group is not None
        assert expected.group is not None
        for ours, theirs in zip(found.group.trajectories, expected.group.trajectories, strict=True):
            assert not ours.infra_failed
            assert [turn.text for turn in ours.turns] == [turn.text for turn in theirs.turns]
            assert [turn.doc_ids for turn in ours.turns] == [turn.doc_ids for turn in theirs.turns]
            assert [t.observation_ids.tolist() for t in ours.turns] == [
                t.observation_ids.tolist() for t in theirs.turns
            ]
            assert ours.reward == theirs.reward == 1


# ---- a retrieval server at `search.url` ------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Answers in our wire format; says "internal error" in words instead while its server is `ill`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        queries = parse_retrieve(body, SearchConfig()).queries
        hits = [[document for document in CORPUS if document.title in query] for query in queries]
        ill = getattr(self.server, "ill", False)
        reply = b"internal error: out of memory" if ill else json.dumps(retrieve_response(hits, True)).encode()
        self.send_response(500 if ill else 200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None: ...


class Retriever:
    """A server that can be closed and opened again at its port."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.port = int(self._server.server_port)
        self._serve()

    def open(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Answers)
        self._serve()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def be_ill(self, ill: bool) -> None:
        vars(self._server)["ill"] = ill

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


@pytest.fixture
def retriever() -> Iterator[Retriever]:
    server = Retriever()
    yield server
    server.close()


@asynccontextmanager
async def ending_after(seconds: float, end: Any, what: str, met: Callable[[], bool]) -> AsyncIterator[None]:
    """A fault that `end` ends a while after it has been `met`. Logs the time from there to the end of the block.

    `end` may take longer than the fault: an app that starts again answers before its start has been reported.
    """
    ended_s: list[float] = []

    async def wait() -> None:
        while not met():  # noqa: ASYNC110 (a line of the log)
            await asyncio.sleep(0.05)
        await asyncio.sleep(seconds)
        ended_s.append(time.monotonic())
        await asyncio.to_thread(end)

    waiting = asyncio.create_task(wait())
    yield
    done_s = time.monotonic()
    assert ended_s, f"rollouts ended before the fault did: {what} was none"
    await waiting
    logger.info("recovery: %s: all rollouts done %.1f s after its end", what, done_s - ended_s[0])


def of_server(retriever: Retriever, policy: RetryPolicy = PATIENT) -> RetryingSearch:
    url = f"http://127.0.0.1:{retriever.port}/retrieve"
    return http_search(SearchConfig(url=url, url_shape="calibadv"), policy)


async def test_a_server_that_is_down_costs_time_and_nothing_else(
    retriever: Retriever, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, CLIENT)
    retriever.close()
    search = of_server(retriever, QUICK)
    async with ending_after(4.0, retriever.open, "server closed for 4 s", lambda: "ConnectError" in caplog.text):
        groups = await rolled(search)
    await check(groups)
    assert caplog.text.count("ConnectError") > len(QUESTIONS) * SAMPLES  # each was refused more than once


async def test_a_server_that_answers_with_errors_is_asked_until_it_is_well(
    retriever: Retriever, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, CLIENT)
    retriever.be_ill(True)
    search = of_server(retriever)
    async with ending_after(
        2.0, partial(retriever.be_ill, False), "server answering 500 for 2 s", lambda: "answered 500" in caplog.text
    ):
        groups = await rolled(search)
    await check(groups)


async def test_a_server_that_stays_down_is_nobodys_wrong_answer(retriever: Retriever) -> None:
    retriever.be_ill(True)
    search = of_server(retriever, RetryPolicy(patience_s=1.0))
    groups = await rolled(search, infra_retries=1)
    await check(groups, lost=[question.id for question in QUESTIONS])
    assert [group.infra_failed for group in groups] == [2 * SAMPLES] * len(QUESTIONS)


# ---- the search app on Ray Serve -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Faults:
    """What the replicas' reranker does, said through a file that they read at each call."""

    file: Path

    def set(self, kind: str = "", who: str = "") -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps([kind, who]))
        part.rename(self.file)


def faulty_corpus(control: str) -> list[Document]:
    """The corpus, read in the replica, whose reranker is from then on as bad as the file says."""
    calls = 0

    def rerank(_: NoReranker, queries: Sequence[str], found: Sequence[Sequence[Document]]) -> list[list[Document]]:
        nonlocal calls
        kind, who = json.loads(Path(control).read_text())
        asked = any(who in query for query in queries if "probe" not in query and query != "warm up")
        calls += asked
        if kind == "raise" and asked:
            raise RuntimeError(ILL)
        if kind == "slow" and calls % 2:
            time.sleep(SLOW_S)
        return [list(documents) for documents in found]

    setattr(NoReranker, "rerank", rerank)  # noqa: B010
    return CORPUS


@pytest.fixture(scope="module")
def faults(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:  # noqa: ARG001
    faults = Faults(tmp_path_factory.mktemp("faults") / "fault.json")
    faults.set()
    start(faults)
    yield faults
    stop_search("faults")


def start(faults: Faults) -> None:
    corpus = partial(faulty_corpus, str(faults.file))
    start_search(SETTINGS, corpus, faults.file.parent / "cache", "faults")


async def test_a_slow_replica_is_waited_for(faults: Faults, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, CLIENT)
    search = serve_search("faults", PATIENT)
    faults.set("slow")
    began_s = time.monotonic()
    groups = await rolled(search)
    assert time.monotonic() - began_s > SLOW_S
    faults.set()
    await check(groups)
    assert "failed" not in caplog.text


async def test_a_reranker_that_raises_for_a_while_is_asked_again(
    faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, CLIENT)
    search = serve_search("faults", PATIENT)
    faults.set("raise")
    async with ending_after(1.0, faults.set, "reranker raising for 1 s", lambda: ILL in caplog.text):
        groups = await rolled(search)
    await check(groups)


async def test_a_query_that_always_makes_the_reranker_raise_is_lost_alone(faults: Faults) -> None:
    # What shares a batch with it fails too, and is asked again without it.
    search = serve_search("faults", replace(QUICK, patience_s=4.0))
    faults.set("raise", "Clara")
    groups = await rolled(search, infra_retries=1)
    faults.set()
    await check(groups, lost=["q2"])
    assert groups[2].infra_failed == 2 * SAMPLES


async def test_a_reranker_that_raises_for_good_is_nobodys_wrong_answer(faults: Faults) -> None:
    search = serve_search("faults", RetryPolicy(patience_s=1.0))
    faults.set("raise")
    groups = await rolled(search)
    faults.set()
    await check(groups, lost=[question.id for question in QUESTIONS])
    await check(await rolled(search))  # the same client, when the reranker is well


async def test_an_app_that_is_deleted_and_started_again_is_found_again(
    faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, CLIENT)
    search = serve_search("faults", PATIENT)
    await check(await rolled(search))
    await asyncio.to_thread(stop_search, "faults")
    async with ending_after(3.0, partial(start, faults), "app deleted for 3 s", lambda: "failed" in caplog.text):
        groups = await rolled(search)
    await check(groups)
