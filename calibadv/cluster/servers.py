"""The HTTP servers that a run calls, and the way to each: directly, or by a proxy."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from calibadv.config import Config
from calibadv.http_client import MAY_READ_TOKENS, Route, keep_direct, route_to, without_password

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A server by what it is, and whether what is sent to it carries a token."""

    name: str
    url: str
    token: bool
    socks: str = "socksio"  # the module of its client for SOCKS proxies

    def route(self) -> Route:
        """The way to it. ValueError for a proxy that its client cannot use."""
        try:
            return route_to(self.url, token=self.token, socks=self.socks)
        except ValueError as error:
            raise ValueError(f"{self.name} {without_password(self.url)}: {error}") from None


def servers_of(config: Config) -> list[Server]:
    """The search server, MLflow's and the judge, as far as the configuration names them."""
    search, turn_judge = config.search, config.method.params.get("judge_url", "")
    judge = config.reward.judge_url if config.reward.judge else ""
    tracked = any(os.environ.get(name) for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"))
    named = (
        Server("search server", search.url, search.sends_secret),
        Server("MLflow server", config.tracking.mlflow_uri, tracked, socks="socks"),
        Server("judge", turn_judge, bool(os.environ.get("JUDGE_API_KEY"))),
        Server("judge of answers", judge, bool(os.environ.get("JUDGE_API_KEY"))),
    )
    return [server for server in named if server.url.startswith(("http://", "https://"))]


def server_in_use(config: Config) -> str:
    """The search server and the way to it, in words; "" where the run starts a search app of its own."""
    asked = (server for server in servers_of(config) if server.url == config.search.url)
    return next((f"{without_password(server.url)}{server.route()}" for server in asked), "")


def check_routes(config: Config) -> None:
    """Says which servers are asked by a proxy, and which in spite of one directly. ValueError as `Server.route`."""
    for server in servers_of(config):
        route = server.route()
        if route.proxy:
            logger.info("the %s %s is asked%s", server.name, without_password(server.url), route)
        elif route.spared:
            logger.info("the %s %s", server.name, spared(server, route))
        if server.name == "MLflow server":
            keep_direct(server.url, token=server.token)


def spared(server: Server, route: Route) -> str:
    """Why the server is asked directly though a proxy is named, and how to ask it by the proxy."""
    return (
        f"{without_password(server.url)} is asked directly: the proxy of {route.variable} would read its token "
        f"(use https, or set {MAY_READ_TOKENS}=1 to let it)"
    )
