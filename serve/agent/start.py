"""Starts the agent on the Ray that runs, over the search app of a run's configuration, and waits until both answer."""

from __future__ import annotations

from ray import serve
from ray.serve import Application

from calibadv.config.serve import ServeConfig
from serve.agent.application import APP
from serve.app import check_port_free, why_not_started

DRAIN_S = 30.0  # beyond an answer's time: the proxy is not the one to give up first


def open_http(settings: ServeConfig) -> None:
    """Starts Serve with its HTTP proxy, before any app: one that runs without cannot open a port any more.

    RuntimeError where the port is taken, or where Serve runs without the proxy.
    """
    if not serve.status().proxies:
        check_port_free(settings.host, settings.port, "--serve.port")
    http = {"host": settings.host, "port": settings.port, "request_timeout_s": settings.timeout_s + DRAIN_S}
    serve.start(proxy_location="HeadOnly", http_options=http)
    if not serve.status().proxies:
        raise RuntimeError(
            f"Serve already runs on this cluster without an HTTP proxy, so port {settings.port} cannot be opened: call "
            "serve.shutdown() first"
        )


def start_agent(application: Application) -> None:
    """Deploys it and waits until every replica answers. RuntimeError, with a replica's own error, where one cannot."""
    try:
        serve.run(application, name=APP, route_prefix="/")
    except RuntimeError as error:
        raise RuntimeError(f"the agent did not start: {why_not_started(APP)}") from error
