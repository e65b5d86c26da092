"""Starts and stops the search app on Ray Serve; `python -m serve.app --corpus FILE` serves it over HTTP."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ray import serve

from calibadv.cluster.ending import end_ray
from calibadv.cluster.local_ray import init_local_ray
from calibadv.http_client import is_loopback
from calibadv.search.reading import add_search_flags, flagged_search, parse_flags
from calibadv.search.settings import SearchConfig
from serve.application import Corpus, search_application

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 120.0  # of one HTTP call: a caller that sends a byte a minute holds no place for ever


def start_search(
    config: SearchConfig,
    corpus: Corpus,
    cache_dir: str | Path,
    name: str = "search",
    resources: Mapping[str, float] | None = None,
) -> None:
    """Deploy the search app `name` on the running Ray cluster and wait until every replica answers.

    The first start embeds the corpus into `cache_dir` (minutes for thousands of passages on a CPU). Raises
    `ValueError` for a name that Serve cannot use, `RuntimeError` when the HTTP port is taken, when Serve already runs
    without the proxy that is asked for, or when the replica cannot start (its own error is in the message), and as
    `search_application` does.
    """
    if not name.isascii():
        raise ValueError(f"the search app's name {name!r} is not ASCII, and Serve would wait for it without end")
    target = search_application(config, corpus, cache_dir, resources)
    _start_serve(config)
    try:
        serve.run(target, name=name, route_prefix="/" if config.http_port is not None else None)
    except RuntimeError as error:
        raise RuntimeError(f"the search app {name!r} did not start: {why_not_started(name)}") from error
    where = f"http://{config.http_host}:{config.http_port}/retrieve" if config.http_port is not None else "handles"
    logger.info("search: app %r answers by %s", name, where)


def stop_search(name: str = "search") -> None:
    """Remove the app, and stop Serve when it was the last one. Does nothing when there is no such app."""
    if name in serve.status().applications:
        serve.delete(name)
    if not serve.status().applications:
        serve.shutdown()


def _start_serve(config: SearchConfig) -> None:
    running = serve.status().proxies
    if config.http_port is None:
        serve.start(proxy_location="Disabled")
        return
    if not running:
        check_port_free(config.http_host, config.http_port, "http_port", "; training needs none")
    if not is_loopback(config.http_host) and not config.token_env:
        logger.warning("search: %s is open to the network without a token: set token_env", config.http_host)
    http = {"host": config.http_host, "port": config.http_port, "request_timeout_s": REQUEST_TIMEOUT_S}
    serve.start(proxy_location="HeadOnly", http_options=http)
    if not serve.status().proxies:
        raise RuntimeError(
            f"Serve already runs on this cluster without an HTTP proxy, so port {config.http_port} cannot be opened: "
            "call serve.shutdown() first, or leave http_port empty and call by handle"
        )


def why_not_started(name: str) -> str:
    """What Serve knows of a failed deployment; its own error says only that there was one. Removes the app."""
    app = serve.status().applications.get(name)
    serve.delete(name)
    return " ".join(deployment.message for deployment in app.deployments.values()) if app else "no status is known"


def check_port_free(host: str, port: int, setting: str, instead: str = "") -> None:
    """RuntimeError, with the setting that chooses another one, where somebody listens on the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RuntimeError(
                f"Serve cannot listen on {host}:{port} ({error.strerror}): stop what uses the port, or choose another "
                f"{setting}{instead}"
            ) from error


def asked(arguments: Sequence[str] | None = None) -> tuple[SearchConfig, str, str]:
    """What to serve, of which corpus, and where its indexes are kept."""
    parser = argparse.ArgumentParser(prog="python -m serve.app", description=__doc__, allow_abbrev=False)
    parser.add_argument("--corpus", required=True, help="corpus file or store")
    parser.add_argument("--cache-dir", default=".cache/search", help="where embeddings and indexes are kept")
    add_search_flags(parser, http_port=8000)
    args = parse_flags(parser, arguments)
    return flagged_search(args), args.corpus, args.cache_dir


def main() -> None:
    """Serve one corpus over HTTP until interrupted."""
    config, corpus, cache_dir = asked()
    logging.basicConfig(level=logging.INFO)
    # Read when Serve's processes start; its own 5 s is too short for a slow machine.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "120")
    init_local_ray()
    interrupted = threading.Event()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: interrupted.set())
    try:
        start_search(config, corpus, cache_dir)
        interrupted.wait()
    finally:
        stop_search()
        end_ray()


if __name__ == "__main__":
    main()
