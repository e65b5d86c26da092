"""Starts and stops the search app on Ray Serve; `python -m serve.app --corpus FILE` serves it over HTTP."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
from ray import serve

from calibadv.search.settings import SearchSettings
from calibadv.types import Document
from serve.retriever import SearchService

logger = logging.getLogger(__name__)

Corpus = str | Path | Callable[[], Sequence[Document]]
"""A corpus file for `calibadv.data.corpus.load_corpus`, or a function that gives the documents. Read in the replica."""


@dataclass(frozen=True, slots=True)
class SearchAppOptions:
    """How the app runs: what it answers is `SearchSettings`' business.

    `http_port` None starts no HTTP proxy at all: training calls by handle, and a proxy costs a process and seconds.
    """

    name: str = "search"
    replicas: int = 1
    num_cpus: float = 0.5  # a replica; it computes with SearchSettings.threads threads
    num_gpus: float = 0.0
    max_batch_size: int = 32
    batch_wait_s: float = 0.01
    max_ongoing_requests: int = 128  # a replica: several batches, so that the next one is full when one ends
    max_queued_requests: int = 4096  # a caller; more is refused (503, BackPressureError) and retried by the client
    http_host: str = "127.0.0.1"
    http_port: int | None = None


def start_search(
    settings: SearchSettings, corpus: Corpus, cache_dir: str | Path, options: SearchAppOptions | None = None
) -> None:
    """Deploy the search app on the running Ray cluster and wait until every replica answers.

    The first start embeds the corpus into `cache_dir` (minutes for thousands of passages on a CPU). Raises
    `RuntimeError` when the HTTP port is taken, when Serve already runs without the proxy that is asked for, or when the
    replica cannot start (its own error is in the message); `FileNotFoundError` for a corpus file that is not there.
    """
    options = options or SearchAppOptions()
    load = corpus if callable(corpus) else partial(_load_corpus, _existing(corpus))
    _start_serve(options)
    actor_options: dict[str, object] = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus}
    if settings.threads is not None:
        actor_options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(settings.threads)}}
    deployment = serve.deployment(
        SearchService,
        name="search",
        num_replicas=options.replicas,
        ray_actor_options=actor_options,
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        max_constructor_retry_count=1,  # a corpus that cannot be read does not get better
        health_check_period_s=5,
        health_check_timeout_s=60,  # a loaded machine is slow, not ill
    )
    target = deployment.bind(
        load, settings, str(Path(cache_dir).absolute()), options.max_batch_size, options.batch_wait_s
    )
    try:
        serve.run(target, name=options.name, route_prefix="/" if options.http_port is not None else None)
    except RuntimeError as error:
        raise RuntimeError(f"the search app {options.name!r} did not start: {_why(options.name)}") from error
    where = f"http://{options.http_host}:{options.http_port}/retrieve" if options.http_port is not None else "handles"
    logger.info("search: app %r answers by %s", options.name, where)


def stop_search(name: str = "search") -> None:
    """Remove the app, and stop Serve when it was the last one. Does nothing when there is no such app."""
    if name in serve.status().applications:
        serve.delete(name)
    if not serve.status().applications:
        serve.shutdown()


def _start_serve(options: SearchAppOptions) -> None:
    running = serve.status().proxies
    if options.http_port is None:
        serve.start(proxy_location="Disabled")
        return
    if not running:
        _check_port_free(options.http_host, options.http_port)
    serve.start(proxy_location="HeadOnly", http_options={"host": options.http_host, "port": options.http_port})
    if not serve.status().proxies:
        raise RuntimeError(
            f"Serve already runs on this cluster without an HTTP proxy, so port {options.http_port} cannot be opened: "
            "call serve.shutdown() first, or leave http_port empty and call by handle"
        )


def _why(name: str) -> str:
    """What Serve knows of a failed deployment; its own error says only that there was one. Removes the app."""
    app = serve.status().applications.get(name)
    serve.delete(name)
    return " ".join(deployment.message for deployment in app.deployments.values()) if app else "no status is known"


def _check_port_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RuntimeError(
                f"the search app cannot listen on {host}:{port} ({error.strerror}): stop what uses the port, choose "
                "another http_port, or leave it empty (training calls by handle and needs none)"
            ) from error


def _existing(corpus: str | Path) -> str:
    path = Path(corpus).absolute()
    if not path.exists():
        raise FileNotFoundError(f"corpus {path} is not there: prepare it with workflows/prepare_data.py")
    return str(path)


def _load_corpus(path: str) -> Sequence[Document]:
    from calibadv.data.corpus import load_corpus

    documents: Sequence[Document] = load_corpus(Path(path))
    return documents


def main() -> None:
    """Serve one corpus over HTTP until interrupted."""
    defaults = SearchSettings()
    parser = argparse.ArgumentParser(prog="python -m serve.app", description=__doc__)
    parser.add_argument("--corpus", required=True, help="corpus file (jsonl)")
    parser.add_argument("--cache-dir", default=".cache/search", help="where embeddings are kept")
    parser.add_argument("--retriever", default=defaults.retriever)
    parser.add_argument("--reranker", default=defaults.reranker)
    parser.add_argument("--encoder", default=defaults.encoder)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    # Read when Serve's processes start; its own 5 s is too short for a slow machine.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "120")
    settings = SearchSettings(retriever=args.retriever, reranker=args.reranker, encoder=args.encoder)
    ray.init(address="local", include_dashboard=False)
    options = SearchAppOptions(replicas=args.replicas, http_host=args.host, http_port=args.port)
    interrupted = threading.Event()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: interrupted.set())
    try:
        start_search(settings, args.corpus, args.cache_dir, options)
        interrupted.wait()
    finally:
        stop_search()
        ray.shutdown()


if __name__ == "__main__":
    main()
