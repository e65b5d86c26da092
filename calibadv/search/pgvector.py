"""Search by PostgreSQL with pgvector (`search.url_shape = "pgvector"`; the `psycopg` package): a query in SQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from calibadv.http_client import without_password
from calibadv.retries import in_words
from calibadv.search.client import Refused, RetryingSearch, RetryPolicy
from calibadv.search.json_api import JsonApi
from calibadv.search.remote import Vector, engine_documents, query_vector, token_of
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

try:
    import psycopg
    from psycopg.rows import dict_row
except ImportError as error:
    raise ValueError(
        "search.url_shape = 'pgvector', and the package psycopg is not installed: pip install 'calibadv[pgvector]'"
    ) from error

CONNECTIONS = 8  # of a process: PostgreSQL's own limit is 100 over all of them
_READING = JsonApi(results="rows", id="id", title="title", text="text", score="score")

Connection = psycopg.AsyncConnection[dict[str, Any]]


def pgvector_search(
    config: SearchConfig, policy: RetryPolicy | None = None, vector: Vector | None = None
) -> RetryingSearch:
    """A `SearchFn` of the rows that `config.sql` selects, retried as the configuration says; then `SearchFailed`.

    The variable `config.token_env` holds the password. A statement that the server does not understand, or that does
    not fit its tables, is not tried again. `vector`: of a query; by default of `config.encoder`.
    """
    password = token_of(config) or None
    place = without_password(config.url)
    vector_of = (vector or query_vector(config)) if config.sql_needs_vector else None
    statement = config.statement.encode()  # psycopg takes text only where it stands in the source

    async def connect() -> Connection:
        try:
            return await psycopg.AsyncConnection.connect(
                config.url, password=password, autocommit=True, row_factory=dict_row
            )
        except psycopg.OperationalError as error:
            raise RuntimeError(f"{place} takes no connection ({error})") from error

    connections = _Connections(connect)

    async def call(query: str) -> tuple[Document, ...]:
        # A text of PostgreSQL holds no NUL.
        values: dict[str, Any] = {"query": query.replace("\0", " "), "k": config.top_k}
        if vector_of is not None:
            values["vector"] = str(await asyncio.to_thread(vector_of, query))
        try:
            async with connections.one() as connection:
                rows = await (await connection.execute(statement, values)).fetchmany(config.top_k)
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
            raise Refused(f"{place}: {error}") from error
        except psycopg.Error as error:
            raise RuntimeError(f"{place} did not answer ({in_words(error)})") from error
        return engine_documents({"rows": [row | {"id": _identity(row)} for row in rows]}, _READING)

    places = asyncio.Semaphore(CONNECTIONS)
    policy = policy or RetryPolicy(config.timeout_s, config.patience_s)
    return RetryingSearch(call, policy, normal=config.cut, place=lambda: places)


def _identity(row: dict[str, Any]) -> str | None:
    """A number's or a UUID's text; None where the statement selects none."""
    return None if row.get("id") is None else str(row["id"])


class _Connections:
    """Open connections, each for one query at a time. After a failure none is used again."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            yield connection
        except BaseException:  # a call that ran out of time too: its answer must not be the next one's
            idle, self._idle = self._idle, []
            for each in (connection, *idle):
                await each.close()
            raise
        self._idle.append(connection)
