"""Starts and stops the search app on Ray Serve; `python -m serve.app --corpus FILE` serves it over HTTP."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application

from calibadv.cluster.ray_session import ray_at
from calibadv.http_client import is_loopback
from calibadv.search.reading import add_search_flags, flagged_search, parse_flags
from calibadv.search.settings import SearchConfig
from serve.application import Corpus, search_application

logger = logging.getLogger(__name__)


def start_search(
    config: SearchConfig,
    corpus: Corpus,
    cache_dir: str | Path,
    name: str = "search",
    resources: Mapping[str, float] | None = None,
) -> None:
    """Deploy the search app `name` on the running Ray cluster and wait until every replica answers.

    The first start embeds the corpus into `cache_dir` (minutes for thousands of passages on a CPU). Raises
    `ValueError` for a name that Serve cannot use, `RuntimeError` when the HTTP port is taken or when the replica cannot
    start (its own error is in the message), and as `search_application` does.
    """
    if not name.isascii():
        raise ValueError(f"the search app's name {name!r} is not ASCII, and Serve would wait for it without end")
    target = search_application(config, corpus, cache_dir, resources)
    if config.http_port is not None:
        check_port_free(config.http_host, config.http_port, "http_port", "; training needs none")
        if not is_loopback(config.http_host) and not config.token_env:
            logger.warning("search: %s is open to the network without a token: set token_env", config.http_host)
    run_app(target, name)
    where = f"http://{config.http_host}:{config.http_port}/retrieve" if config.http_port is not None else "handles"
    logger.info("search: app %r answers by %s", name, where)


def stop_search(name: str = "search") -> None:
    """Remove the app, and stop Serve when it was the last one. Does nothing when there is no such app."""
    if name in serve.status().applications:
        serve.delete(name)
    if not serve.status().applications:
        serve.shutdown()


def run_app(target: Application, name: str) -> None:
    """Deploys an application on the running Ray cluster and waits until every replica answers.

    Without Serve's proxy: whatever speaks HTTP listens itself. RuntimeError, with a replica's own error, where one
    cannot start; the app is removed then.
    """
    try:
        try:
            _run(target, name)
        except RayActorError:  # Serve's controller: another driver, whose app was the last one, has just ended it
            _run(target, name)
    except RuntimeError as error:
        # Serve's own error says only that there was one.
        app = serve.status().applications.get(name)
        serve.delete(name)
        why = " ".join(one.message for one in app.deployments.values()) if app else "no status is known"
        raise RuntimeError(f"the app {name!r} did not start: {why}") from error


def _run(target: Application, name: str) -> None:
    serve.start(proxy_location="Disabled")
    serve.run(target, name=name, route_prefix=None)


def check_not_running(name: str, what: str, setting: str) -> None:
    """ValueError where an app of that name runs on the Ray cluster, whoever started it: it would be replaced."""
    if name in serve.status().applications:
        end = f"import ray; from ray import serve; ray.init('auto'); serve.delete('{name}')"
        raise ValueError(
            f"{what} already, by the app {name!r}: choose another {setting}, or end that one; if its process was "
            f'killed, by python -c "{end}"'
        )


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
    with ray_at(log_to_driver=True):
        interrupted = threading.Event()
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, lambda *_: interrupted.set())
        try:
            start_search(config, corpus, cache_dir)
            interrupted.wait()
        finally:
            stop_search()


if __name__ == "__main__":
    main()
