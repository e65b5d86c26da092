"""The search app as a Serve application: from settings and options to what `serve.run` and `serve run` deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ray import serve
from ray.serve import Application

from calibadv.search.corpus_source import open_corpus
from calibadv.search.settings import SearchSettings
from calibadv.types import Document
from serve.retriever import SearchService
from serve.shards import IndexShard, shard_arguments

Corpus = str | Path | Callable[[], Sequence[Document]]
"""A corpus file or store for `open_corpus`, or a function that gives the documents. Read in the replica."""


@dataclass(frozen=True, slots=True)
class SearchAppOptions:
    """How the app runs: what it answers is `SearchSettings`' business.

    `http_port` None starts no HTTP proxy at all: training calls by handle, and a proxy costs a process and seconds.
    `token_env` names an environment variable of the replicas that holds the HTTP token; handles need none.
    """

    name: str = "search"
    replicas: int = 1
    num_cpus: float = 0.5  # a replica; it computes with SearchSettings.threads threads
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)  # custom ones, of replicas and shards alike
    shards: int = 1  # of `SearchSettings.faiss_index`; more than one: each a deployment, for an index too big for one
    shard_replicas: int = 1  # of each shard
    shard_cpus: float = 1.0
    shard_gpus: float = 0.0
    max_batch_size: int = 32
    batch_wait_s: float = 0.01
    max_ongoing_requests: int = 128  # a replica: several batches, so that the next one is full when one ends
    max_queued_requests: int = 4096  # a caller; more is refused (503, BackPressureError) and retried by the client
    http_host: str = "127.0.0.1"
    http_port: int | None = None
    token_env: str = ""

    def __post_init__(self) -> None:
        for name in ("replicas", "shards", "shard_replicas", "max_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; expected at least 1")


def search_application(
    settings: SearchSettings, corpus: Corpus, cache_dir: str | Path, options: SearchAppOptions
) -> Application:
    """The app, ready to be run. Nothing starts yet.

    Raises `FileNotFoundError` for a corpus that is not there, and `ValueError` for shards of an index that has no
    pieces for them.
    """
    load = corpus if callable(corpus) else partial(open_corpus, _existing(corpus))
    environment = {} if settings.threads is None else {"env_vars": {"OMP_NUM_THREADS": str(settings.threads)}}
    device = settings.device if options.shard_gpus else "cpu"
    arguments_of_shards = shard_arguments(settings, options.shards, device) if options.shards > 1 else []
    shards = [
        serve.deployment(
            IndexShard,
            name=f"index-{shard}",
            num_replicas=options.shard_replicas,
            ray_actor_options={
                "num_cpus": options.shard_cpus,
                "num_gpus": options.shard_gpus,
                "resources": dict(options.resources),
                "runtime_env": environment,
            },
            max_ongoing_requests=options.max_ongoing_requests,
            max_constructor_retry_count=1,
            health_check_timeout_s=60,
        ).bind(*arguments)
        for shard, arguments in enumerate(arguments_of_shards)
    ]
    deployment = serve.deployment(
        SearchService,
        name="search",
        num_replicas=options.replicas,
        ray_actor_options={
            "num_cpus": options.num_cpus,
            "num_gpus": options.num_gpus,
            "resources": dict(options.resources),
            "runtime_env": environment,
        },
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        max_constructor_retry_count=1,  # a corpus that cannot be read does not get better
        health_check_period_s=5,
        health_check_timeout_s=60,  # a loaded machine is slow, not ill
    )
    return deployment.bind(
        load,
        settings,
        str(Path(cache_dir).absolute()),
        options.max_batch_size,
        options.batch_wait_s,
        options.token_env,
        *shards,
    )


def _existing(corpus: str | Path) -> str:
    path = Path(corpus).absolute()
    if not path.exists():
        raise FileNotFoundError(f"corpus {path} is not there: prepare it with workflows/prepare_data.py")
    return str(path)
