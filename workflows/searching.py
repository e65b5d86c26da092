"""From the search section of a configuration to a search tool: an app of the run's own, or a server that is up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from calibadv.config import Config, role
from calibadv.rollout.protocols import SearchFn
from calibadv.search.client import RetryPolicy
from calibadv.search.faiss_index import IndexOptions
from calibadv.search.remote import http_search
from calibadv.search.settings import SearchSettings
from serve.app import start_search
from serve.application import SearchAppOptions
from serve.search_client import serve_search


def open_search(config: Config, corpus: Path, name: str) -> None:
    """Starts the search app `name` over the corpus and returns when it answers; nothing where `search.url` is asked."""
    if not config.search.url:
        start_search(search_settings(config), corpus, config.run.cache / "search", _app_options(config, name))


def search_factory(config: Config, name: str) -> Callable[[], SearchFn]:
    """What makes the search tool inside an engine: of the app `name`, or of the server at `search.url`."""
    search = config.search
    policy = RetryPolicy(timeout_s=search.timeout_s, patience_s=search.patience_s)
    if not search.url:
        return partial(serve_search, name, policy)
    return partial(
        http_search,
        search.url,
        shape=search.url_shape,
        top_k_retrieve=search.top_k_retrieve,
        top_k=search.top_k,
        token_env=search.token_env,
        policy=policy,
    )


def search_settings(config: Config) -> SearchSettings:
    """The search section as the pipeline's settings."""
    search = config.search
    return SearchSettings(
        retriever=search.retriever,
        reranker=search.reranker,
        encoder=search.encoder,
        late_scores=search.late_scores,
        tokens=search.tokens,
        cross_encoder=search.cross_encoder,
        top_k_retrieve=search.top_k_retrieve,
        top_k=search.top_k,
        query_prefix=search.query_prefix,
        passage_prefix=search.passage_prefix,
        device=search.device,
        index=IndexOptions(search.index),
        faiss_index=search.faiss_index,
    )


def _app_options(config: Config, name: str) -> SearchAppOptions:
    return SearchAppOptions(
        name=name,
        replicas=config.search.replicas,
        num_cpus=config.cluster.search_cpus,
        num_gpus=config.cluster.search_gpus,
        shards=config.search.shards,
        shard_gpus=config.cluster.search_gpus if config.search.shards > 1 else 0.0,
        resources=role(config.cluster.search_on),
        http_port=config.search.http_port,
        token_env=config.search.token_env,
    )
