"""The search that rollouts will ask, in this process: for what is made before a run, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibadv.rollout.protocols import SearchFn
from calibadv.search.build import build_pipeline
from calibadv.search.elsewhere import search_elsewhere
from calibadv.search.pipeline import SearchPipeline
from calibadv.search.recorded import engine_of, recorded_search
from calibadv.search.settings import SearchConfig
from calibadv.types import Document


def search_here(config: SearchConfig, documents: Sequence[Document], cache: Path) -> SearchFn:
    """The server or the tool that the settings name, else their pipeline over `documents`; see `build_pipeline`.

    A server's client belongs to the event loop that this is called in.
    """
    if not config.elsewhere:
        return searching(build_pipeline(documents, config, cache / "search"))
    ask = search_elsewhere(config)
    return recorded_search(config, ask, engine_of(config, "")) if config.together else ask()


def searching(pipeline: SearchPipeline) -> SearchFn:
    """The pipeline as a rollout's search."""

    async def search(query: str) -> tuple[Document, ...]:
        return pipeline.search_batch([query])[0]

    return search
