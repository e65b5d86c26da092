"""What a run would give away: secrets in its configuration, tokens in clear, files that others can read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from calibadv.cluster.ray_place import token_fault, token_file
from calibadv.config import Config
from calibadv.config.secrets import secret_keys
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.http_client import is_loopback

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEPT_IN = "the configuration is written to runs/ and to MLflow"


def exposure(subject: Subject) -> Iterator[Finding]:
    """The configuration's secrets, the tokens that it names, and the file of Ray's own token."""
    config = subject.config
    yield no_secret(config)
    yield from named_tokens(config)
    yield ray_token(token_file(os.environ), token_fault(os.environ))


def no_secret(config: Config) -> Finding:
    """Whether a value of the configuration is, or holds, a secret. It is never shown, only its key."""
    keys = secret_keys(config.model_dump())
    if not keys:
        return passed("secrets", f"none in the configuration: {_KEPT_IN}")
    remedy = (
        "leave it out of the recipe and the command line: search.token_env names a variable, the judge reads "
        "JUDGE_API_KEY, MLflow reads MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and _PASSWORD"
    )
    return failed("secrets", f"{', '.join(keys)} holds a password or a token, and {_KEPT_IN}", remedy)


def named_tokens(config: Config) -> Iterator[Finding]:
    """Whether the token that the search server asks for is here, and goes where nobody listens."""
    search = config.search
    if not search.token_env:
        return
    if not _NAME.fullmatch(search.token_env):
        return  # said of the secrets, without its value
    if not os.environ.get(search.token_env):
        remedy = f"export {search.token_env}, on every node of a cluster, where Ray is started"
        yield failed("search token", f"no variable {search.token_env} in this environment", remedy)
        return
    yield in_the_clear(search.url)


def in_the_clear(url: str) -> Finding:
    """Whether the token would cross a network that anybody on it can read."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        remedy = "use https, or an ssh tunnel that ends on 127.0.0.1"
        return warned("search token", f"it would go to {parts.hostname} unencrypted", remedy)
    return passed("search token", "its variable is set, and it crosses no network in the clear")


def ray_token(path: Path | None, fault: str = "") -> Finding:
    """Whether Ray has or can keep a token, and whether others on this machine can read it: it has the usual rights."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        remedy = "unset it: Ray's ports take code from whoever reaches them, and Serve's replicas listen everywhere"
        return failed("Ray token", "RAY_AUTH_MODE=disabled", remedy)
    if fault and os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return failed("Ray token", fault, "write a token there (`ray get-auth-token --generate`), or unset it")
    if fault:
        remedy = "a local Ray gets one that ends with the run; RAY_AUTH_TOKEN_PATH names a file for one that stays"
        return warned("Ray token", fault, remedy)
    if os.environ.get("RAY_AUTH_TOKEN"):
        return passed("Ray token", "it is in the environment (RAY_AUTH_TOKEN)")
    if path is None or not path.is_file():
        return passed("Ray token", "none yet: Ray makes one when it starts a local cluster")
    rights = stat.S_IMODE(path.stat().st_mode)
    if rights & 0o077 and not _hidden(path):
        said = f"{path} has the rights {rights:03o}: others on this machine can read it, and run code as you"
        return warned("Ray token", said, f"chmod 600 {path}")
    return passed("Ray token", f"{path} is yours alone")


def _hidden(path: Path) -> bool:
    """Whether a folder above lets no one else through."""
    return any(not folder.stat().st_mode & 0o011 for folder in path.parents)
