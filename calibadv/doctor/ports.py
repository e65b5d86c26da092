"""Ports: those that the run will open must be free, those that it will call must answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from calibadv.cluster.servers import Server, servers_of, spared
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.http_client import without_password

RAY_AGENT_PORT = 52365  # Ray's dashboard agent has a fixed one, also of clusters that otherwise take any free port
RAY_ADDRESS_FILE = (
    Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
)
_PORT_OF = {"http": 80, "https": 443}
_CONNECT_S = 5.0


def ports(subject: Subject) -> Iterator[Finding]:
    """The search app's HTTP port, Ray's, and the servers that the recipe names."""
    config = subject.config
    if config.search.http_port is None or config.search.url:
        yield passed("search port", "none is opened: rollouts call by Serve handles or by search.url")
    else:
        yield free_port("search port", config.search.http_port, "choose another search.http_port, or leave it out")
    yield ray_port(config.cluster.address)
    yield from (reachable(server) for server in servers_of(config))


def ray_port(address: str) -> Finding:
    """For a local cluster Ray's one fixed port, for another whether its head can be reached."""
    if address == "local":
        if is_free("127.0.0.1", RAY_AGENT_PORT):
            return passed("Ray", "a local cluster will be started")
        remedy = "see `ps` for a forgotten raylet and `ray stop` it; another run beside this one may go on"
        return warned("Ray", f"port {RAY_AGENT_PORT} is taken: a Ray already runs on this machine", remedy)
    head = head_address(address)
    if head is None:
        remedy = "start one (`ray start --head`, `ray up cluster.yaml`), or set RAY_ADDRESS or cluster.address local"
        return failed("Ray", f"cluster.address {address!r}, and no running cluster is known here", remedy)
    host, _, port = head.rpartition(":")
    if not port.isdigit():
        return failed("Ray", f"the address {head!r} has no port", "give cluster.address as HOST:PORT, or auto")
    return answers("Ray", host.strip("[]"), int(port), "is the head up, and may this machine reach its port?")


def head_address(address: str) -> str | None:
    """HOST:PORT of the cluster that Ray would join: the given one, RAY_ADDRESS, or the one that was started here."""
    if address != "auto":
        return address.removeprefix("ray://")
    if named := os.environ.get("RAY_ADDRESS", ""):
        return named if named not in ("auto", "local") else None
    return RAY_ADDRESS_FILE.read_text(encoding="utf-8").strip() or None if RAY_ADDRESS_FILE.is_file() else None


def free_port(name: str, port: int, remedy: str) -> Finding:
    """Whether a port of loopback is free."""
    if is_free("127.0.0.1", port):
        return passed(name, f"127.0.0.1:{port} is free")
    return failed(name, f"127.0.0.1:{port} is taken", remedy)


def is_free(host: str, port: int) -> bool:
    """Whether the port can be listened on."""
    with socket.socket(socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


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
    return answers(name, parts.hostname or "", parts.port or _PORT_OF.get(parts.scheme, 1080), remedy)


def answers(name: str, host: str, port: int, remedy: str) -> Finding:
    """Whether a connection to the port is taken."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return passed(name, f"{host}:{port} takes connections")
    except OSError as error:
        return failed(name, f"{host}:{port} does not: {error.strerror or error}", remedy)
