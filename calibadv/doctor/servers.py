"""The servers that the recipe names: whether each, or the proxy before it, takes connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from calibadv.cluster.servers import Server, servers_of, spared
from calibadv.doctor.finding import Finding, failed, passed
from calibadv.doctor.subject import Subject
from calibadv.http_client import without_password

_PORT_OF = {"http": 80, "https": 443}
_CONNECT_S = 5.0


def servers(subject: Subject) -> Iterator[Finding]:
    """The search server, MLflow's and the judge. A run goes on without the last two, and only warns or counts."""
    yield from (reachable(server) for server in servers_of(subject.config))


def reachable(server: Server) -> Finding:
    """Whether something listens where a request goes first, the server or a proxy; its answer is another check's."""
    try:
        route = server.route()
    except ValueError as error:
        return failed(server.name, str(error), "see there: loopback and what NO_PROXY names are asked directly")
    if route.proxy:
        remedy = f"mend {route.variable}, or add {urlsplit(server.url).hostname} to NO_PROXY"
        found = _listens(server.name, route.proxy, remedy)
        return replace(found, said=f"{without_password(server.url)} is asked{route}: {found.said}")
    remedy = "start it, mend the address, or open the way to it (an ssh tunnel ends on loopback)"
    found = _listens(server.name, server.url, remedy)
    return replace(found, said=f"{found.said}; {spared(server, route)}") if route.spared else found


def _listens(name: str, url: str, remedy: str) -> Finding:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORT_OF.get(parts.scheme, 1080)
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return passed(name, f"{host}:{port} takes connections")
    except OSError as error:
        return failed(name, f"{host}:{port} does not: {error.strerror or error}", remedy)
