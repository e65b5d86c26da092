"""Tokens: whether one would cross a network in the clear, and whether Ray's is on and ours alone."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from calibadv.cluster.ray_place import Environment, token_file
from calibadv.cluster.servers import servers_of
from calibadv.config import Config
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.http_client import is_loopback

_INSISTS = re.compile(r"(^|&)sslmode=(require|verify-ca|verify-full)(&|$)")


def tokens(subject: Subject) -> Iterator[Finding]:
    """Those that the run's servers are sent, and Ray's."""
    yield from sent_tokens(subject.config)
    yield ray_token(os.environ)


def sent_tokens(config: Config) -> Iterator[Finding]:
    """Of each server that is sent one. That a token is set which the recipe names is the search's own check."""
    search = config.search
    if search.url_shape == "pgvector" and search.token_env:
        yield sent_token("search server", search.url)
    for server in servers_of(config):
        if server.token:
            yield sent_token(server.name, server.url)


def sent_token(name: str, url: str) -> Finding:
    """Whether the server's token crosses no network that anybody on it can read.

    PostgreSQL's client is content with a connection in the clear unless `sslmode` says otherwise.
    """
    parts = urlsplit(url)
    clear = parts.scheme == "http" or (parts.scheme != "https" and not _INSISTS.search(parts.query))
    if clear and parts.hostname and not is_loopback(parts.hostname):
        remedy = "use https (PostgreSQL: ?sslmode=verify-full), or an ssh tunnel that ends on 127.0.0.1"
        return warned(f"{name} token", f"it would go to {parts.hostname} unencrypted", remedy)
    return passed(f"{name} token", "it crosses no network in the clear")


def ray_token(environment: Environment) -> Finding:
    """Whether Ray asks for a token, and whether others on this machine can read the file of one that stays."""
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        remedy = "unset it: Ray's ports take code from whoever reaches them, and Serve's replicas listen everywhere"
        return failed("Ray token", "RAY_AUTH_MODE=disabled", remedy)
    path = None if environment.get("RAY_AUTH_TOKEN") else token_file(environment)
    if path is None or not path.is_file():
        return passed("Ray token", "it is in the environment, or made at a run's start")
    rights = stat.S_IMODE(path.stat().st_mode)
    if rights & 0o077 and not _hidden(path):
        said = f"{path} has the rights {rights:03o}: others on this machine can read it, and run code as you"
        return warned("Ray token", said, f"chmod 600 {path}")
    return passed("Ray token", f"{path} is yours alone")


def _hidden(path: Path) -> bool:
    """Whether a folder above lets no one else through."""
    return any(not folder.stat().st_mode & 0o011 for folder in path.parents)
