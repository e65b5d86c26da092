"""How an HTTP client of ours reaches its server: directly, or by the proxy that the environment names.

Loopback is never asked by a proxy. A request over plain http that carries a token is not either, for the proxy would
read the token, unless CALIBADV_PROXY_TOKENS=1 says that it may. All else is as HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
NO_PROXY (a host, a domain, a network, `*`) say, in capitals or small letters.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MAY_READ_TOKENS = "CALIBADV_PROXY_TOKENS"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a server. `proxy` is "" for the direct one."""

    proxy: str = ""
    variable: str = ""  # of the environment, that names a proxy
    spared: bool = False  # asked directly because that proxy would read the request's token

    def __str__(self) -> str:
        """Its words after an address: " by the proxy http://10.0.0.1:3128 (HTTPS_PROXY)", or "". No password."""
        return f" by the proxy {without_password(self.proxy)} ({self.variable})" if self.proxy else ""


def route_to(url: str, *, token: bool = False, socks: str = "socksio") -> Route:
    """The way to the server of `url`, whose requests carry a token or not.

    `socks` is the module that the client needs for a SOCKS proxy. ValueError where such a proxy would be used without.
    """
    parts = urlsplit(url)
    host, scheme = parts.hostname or "", parts.scheme
    variable = _proxy_variable(scheme)
    if not variable or _stays_here(host) or _excepted(host, parts.port):
        return Route()
    if token and scheme == "http" and os.environ.get(MAY_READ_TOKENS) != "1":
        return Route(variable=variable, spared=True)
    proxy = os.environ[variable].strip()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme.startswith("socks") and importlib.util.find_spec(socks) is None:
        raise ValueError(
            f"{variable} = {without_password(proxy)} is a SOCKS proxy, and the module {socks}, which a client needs "
            f"for one, is not installed: install it, name an HTTP proxy, or add {host} to NO_PROXY"
        )
    return Route(proxy, variable)


def client_options(url: str, *, token: bool = False) -> dict[str, Any]:
    """Keyword arguments of an httpx client, or request, to the server of `url`; ValueError as `route_to`."""
    import httpx

    # Without the environment, which httpx would follow to the proxy, but with its certificates (SSL_CERT_FILE).
    return {
        "proxy": route_to(url, token=token).proxy or None,
        "trust_env": False,
        "verify": httpx.create_ssl_context(),
    }


def keep_direct(*urls: str, token: bool = False) -> None:
    """Adds loopback, and of `urls` those whose token a proxy would read, to NO_PROXY: for libraries with clients of
    their own, in this process and its children."""
    spared = [urlsplit(url).hostname or "" for url in urls if route_to(url, token=token, socks="sys").spared]
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    listed = [host.strip() for host in given.split(",") if host.strip()]
    whole = ",".join([*listed, *(host for host in (*_LOOPBACK, *spared) if host not in listed)])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = whole


def is_loopback(host: str) -> bool:
    """Whether what is sent to the host stays on this machine."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:  # a name
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


def without_password(url: str) -> str:
    """The address without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _stays_here(host: str) -> bool:
    """Loopback, or the address that means any of this machine's, which a client takes for loopback."""
    return is_loopback(host) or host in (str(ipaddress.IPv4Address(0)), str(ipaddress.IPv6Address(0)))


def _proxy_variable(scheme: str) -> str:
    """The variable that names a proxy for `scheme`; "" where none does. Small letters go first, as in every client."""
    names = (name for kind in (scheme, "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper()))
    return next((name for name in names if os.environ.get(name, "").strip()), "")


def _excepted(host: str, port: int | None) -> bool:
    """Whether NO_PROXY names the host, with its port or without, a domain above it or a network around it."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return any(_names(entry.strip().lower(), host, port) for entry in given.split(",") if entry.strip())


def _names(entry: str, host: str, port: int | None) -> bool:
    if entry in ("*", host, f"{host}:{port}", f"[{host}]", f"[{host}]:{port}"):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # a name
        return host.endswith(f".{entry.removeprefix('*').lstrip('.')}") or host == entry.lstrip(".")
