"""The search app as a Serve application: from its configuration to what `serve.run` and `serve run` deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from calibadv.data.corpus import load_corpus
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from serve.retriever import SearchService
from serve.shards import IndexShard, check_shards

Corpus = str | Path | Callable[[], Sequence[Document]]
"""A corpus file or store, or a function that gives the documents. Read in the replica."""


def search_application(
    config: SearchConfig, corpus: Corpus, cache_dir: str | Path, resources: Mapping[str, float] | None = None
) -> Application:
    """The app, ready to be run: replicas, and the shards of a ready index where `config.shards` asks for them.

    `resources` are custom ones of Ray, which every process of the app asks for. Raises `FileNotFoundError` for a corpus
    that is not there, and `ValueError` for shards of an index that has no pieces for them.
    """

    def deployed(kind: type, name: str, replicas: int, cpus: float, gpus: float, **more: Any) -> Any:
        return serve.deployment(
            kind,
            name=name,
            num_replicas=replicas,
            ray_actor_options={
                "num_cpus": cpus,
                "num_gpus": gpus,
                "resources": dict(resources or {}),
                "runtime_env": {} if config.threads is None else {"env_vars": _threads(config.threads)},
            },
            max_ongoing_requests=config.max_ongoing_requests,
            max_constructor_retry_count=1,  # a corpus that cannot be read does not get better
            health_check_timeout_s=60,  # a loaded machine is slow, not ill
            **more,
        )

    if config.faiss_index:  # a replica may have another working folder
        config = config.but(faiss_index=str(Path(config.faiss_index).absolute()))
    load = corpus if callable(corpus) else partial(load_corpus, _existing(corpus))
    shards = []
    if config.shards > 1:
        check_shards(config)
        on = config if config.shard_gpus else config.but(device="cpu")
        shards = [
            deployed(IndexShard, f"index-{shard}", config.shard_replicas, config.shard_cpus, config.shard_gpus).bind(
                on, shard
            )
            for shard in range(config.shards)
        ]
    service = deployed(
        SearchService,
        "search",
        config.replicas,
        config.num_cpus,
        config.num_gpus,
        max_queued_requests=config.max_queued_requests,
        health_check_period_s=5,
    )
    return service.bind(load, config, str(Path(cache_dir).absolute()), *shards)


def _threads(threads: int) -> dict[str, str]:
    """The environment of a process with so many threads. A run's own switches tokenizers' off for all its processes."""
    several = {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(threads)} if threads > 1 else {}
    return {"OMP_NUM_THREADS": str(threads), **several}


def _existing(corpus: str | Path) -> Path:
    path = Path(corpus).absolute()
    if not path.exists():
        raise FileNotFoundError(f"corpus {path} is not there: prepare it with workflows/prepare_data.py")
    return path
