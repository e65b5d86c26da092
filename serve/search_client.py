"""The search tool of rollouts: a Serve handle, one query a call, retried until it answers or has to give up."""

from __future__ import annotations

from ray import serve

from calibadv.search.client import RetryingSearch, RetryPolicy
from calibadv.types import Document


def serve_search(app_name: str = "search", policy: RetryPolicy | None = None) -> RetryingSearch:
    """A `SearchFn` over the app that `start_search` started, for use inside any Ray actor of the same cluster.

    Queries of concurrent callers are batched on the server. A replica that dies, restarts or is overloaded is retried
    as `policy` says; then `SearchFailed` is raised. Raises `RuntimeError` at once when there is no such app.
    """
    try:
        handle = serve.get_app_handle(app_name)
    except Exception as error:
        raise RuntimeError(f"no search app {app_name!r} runs on this Ray cluster: call start_search first") from error

    async def call(query: str) -> tuple[Document, ...]:
        documents: tuple[Document, ...] = await handle.search.remote(query)
        return documents

    return RetryingSearch(call, policy)
