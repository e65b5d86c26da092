"""PostgreSQL with pgvector: a real server (the package pgserver has both), which this module starts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from typing import Any

import pgserver
import psycopg
import pytest

from calibadv.config import ConfigError, load_config
from calibadv.rollout.protocols import SearchFailed
from calibadv.search import pgvector
from calibadv.search.client import RetryPolicy
from calibadv.search.elsewhere import search_elsewhere
from calibadv.search.pgvector import pgvector_search
from calibadv.search.recorded import engine_of
from calibadv.search.remote import query_vector
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from tests.extend_page import example

ONCE = RetryPolicy(timeout_s=60.0, patience_s=0.0)
QUICK = RetryPolicy(timeout_s=60.0, patience_s=60.0, base_delay_s=0.01, max_delay_s=0.02)
ROWS = [
    ("oslo", "Oslo", "Oslo is the capital of Norway."),
    ("ada", "Ada Lovelace", "Ada Lovelace was born in London."),
    ("rome", "Rome", "Rome was not built in a day."),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Its address; documents with the vectors of MiniLM, and the same by three directions."""
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")  # a short path: its socket lies there
    started = pgserver.get_server(folder)
    vector = query_vector(SearchConfig())
    with psycopg.connect(started.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE documents (id text, title text, text text, embedding vector(384))")
        connection.execute("CREATE INDEX ON documents USING hnsw (embedding vector_cosine_ops)")
        connection.execute("CREATE TABLE small (number int, name text, body text, v vector(3))")
        for number, (id, title, text) in enumerate(ROWS):
            connection.execute(
                "INSERT INTO documents VALUES (%s, %s, %s, %s)", (id, title, text, str(vector(f"{title} {text}")))
            )
            axis = str([float(number == place) for place in range(3)])
            connection.execute("INSERT INTO small VALUES (%s, %s, %s, %s)", (number, title, text, axis))
    yield started.get_uri()
    started.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def settings(server: str, **more: Any) -> SearchConfig:
    return SearchConfig(url=server, url_shape="pgvector", top_k=2, patience_s=0.0).but(**more)


async def test_the_nearest_rows_of_a_table_of_documents_are_found(server: str) -> None:
    search = search_elsewhere(settings(server))()
    first, second = await search("What is the capital of Norway?")
    assert (first.id, first.title, first.text) == ROWS[0]
    assert 1 >= first.score > second.score
    assert [document.id for document in await search("Where was Ada Lovelace born?")][:1] == ["ada"]


async def test_a_statement_of_ones_own_and_of_other_columns(server: str) -> None:
    nearest = "SELECT number AS id, name AS title, body AS text FROM small ORDER BY v <-> %(vector)s LIMIT %(k)s"
    search = pgvector_search(settings(server, sql=nearest, top_k=1), ONCE, vector=lambda _: [0.1, 0.8, 0.1])
    assert await search("who?") == (Document("1", *ROWS[1][1:]),)
    words = "SELECT title, text FROM documents WHERE text LIKE '%%' || %(query)s || '%%' ORDER BY id"
    by_words = pgvector_search(settings(server, sql=words), ONCE)
    assert [document.title for document in await by_words("was")] == ["Ada Lovelace", "Rome"]
    # What a policy writes is a value and never SQL; it may hold what no text of PostgreSQL may.
    assert await by_words("'; DROP TABLE documents; --") == ()
    assert await by_words("\0\ud800") == ()
    assert len(await by_words("Oslo")) == 1


async def test_the_page_s_example_finds_rows(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            "CREATE VIEW passages AS SELECT id AS page, title AS name, text AS body, embedding AS vector, "
            "CASE id WHEN 'rome' THEN 'it' ELSE 'en' END AS language FROM documents"
        )
    shown = tomllib.loads(example("PostgreSQL with pgvector", "toml"))
    shown["search"]["url"] = server
    monkeypatch.setenv("WIKI_PASSWORD", "this server asks for none")
    found = await pgvector_search(load_config(None, shown).search, ONCE)("What is the capital of Norway?")
    assert [document.id for document in found] == ["oslo", "ada"]  # of three, one is not in English
    assert found[0].score > found[1].score


async def test_a_statement_that_cannot_be_is_a_refused_query(server: str) -> None:
    for sql in ("SELECT * FROM nowhere WHERE %(query)s = ''", "SELEC %(query)s", "SELECT id FROM documents, %(query)s"):
        with pytest.raises(SearchFailed, match="the search engine refused 'oslo'"):
            await pgvector_search(settings(server, sql=sql), QUICK, vector=lambda _: [1.0])("oslo")
    wide = pgvector_search(settings(server), QUICK, vector=lambda _: [1.0, 0.0])
    with pytest.raises(SearchFailed, match="different vector dimensions 2 and 384"):
        await wide("oslo")


async def test_a_lost_connection_and_a_call_out_of_time_cost_one_attempt(server: str) -> None:
    search = pgvector_search(settings(server), QUICK)
    (best, _) = await search("the capital of Norway")
    with psycopg.connect(server, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert (await search("the capital of Norway"))[0] == best
    slow = "SELECT pg_sleep(30)::text AS title, text FROM documents WHERE %(query)s = text"
    with pytest.raises(SearchFailed, match=r"in 1 attempts of at most 0\.3 s"):
        await pgvector_search(settings(server, sql=slow), RetryPolicy(timeout_s=0.3, patience_s=0.0))(ROWS[0][2])


async def test_a_wait_for_a_connection_is_no_time_of_the_server_s(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgvector, "CONNECTIONS", 1)
    slow = "SELECT %(query)s AS title, '' AS text FROM (SELECT pg_sleep(1)) AS slept"
    search = pgvector_search(settings(server, sql=slow, max_query_chars=20), RetryPolicy(timeout_s=3.0, patience_s=0.0))
    found = await asyncio.gather(*(search("x" * 50) for _ in range(4)))
    assert [document.title for (document,) in found] == ["x" * 20] * 4


async def test_a_server_that_is_down_is_a_failed_search(server: str) -> None:
    nobody = settings(server).but(url="postgresql://reader@127.0.0.1:9/wiki")
    with pytest.raises(SearchFailed, match=r"postgresql://127\.0\.0\.1:9/wiki takes no connection"):
        await pgvector_search(nobody, ONCE)("oslo")


def test_the_password_is_the_environment_s(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PG_PASSWORD", raising=False)
    with pytest.raises(ValueError, match="token_env = 'PG_PASSWORD', but there is no such environment variable"):
        pgvector_search(settings(server, token_env="PG_PASSWORD"))
    with pytest.raises(ConfigError, match=r"search\.url"):
        load_config(None, {"search": {"url": "postgresql://a:s3cret@h/d", "url_shape": "pgvector"}})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "http://h", "url_shape": "pgvector"}, r"expected postgresql://USER@HOST/DATABASE"),
        ({"url": "postgresql://h/d", "url_shape": "pgvector", "sql": "SELECT 1"}, r"put %\(vector\)s or %\(query\)s"),
        ({"url": "http://h", "url_shape": "searxng", "sql": "SELECT 1"}, "expected 'pgvector'"),
        ({"url": "postgresql://h/d", "url_shape": "pgvector", "http": {"text": "t"}}, "expected one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(None, {"search": given})
    assert "\n" not in str(caught.value)


def test_the_statement_is_part_of_the_engine(server: str) -> None:
    own = "SELECT title, text FROM documents WHERE text = %(query)s"
    assert engine_of(settings(server), "") != engine_of(settings(server, sql=own), "")
    assert engine_of(settings(server), "") != engine_of(settings(server, query_prefix="query: "), "")
    assert engine_of(settings(server, sql=own), "") == engine_of(settings(server, sql=own, query_prefix="q: "), "")
