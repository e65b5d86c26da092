"""Who may ask over HTTP: everyone who can reach the port, or those who send the token."""

from __future__ import annotations

import hmac
import os


def authorised(header: str, token: str) -> bool:
    """Whether an Authorization header carries the token; without a token everyone may ask."""
    # compare_digest takes as long for a wrong token as for a right one.
    return not token or hmac.compare_digest(header.encode("utf-8", "replace"), f"Bearer {token}".encode())


def token_of(variable: str) -> str:
    """The token in the environment variable of this name, "" for no name. The value itself is in no Serve config.

    Raises `ValueError` when the variable is empty or not set: a server that should ask for a token must not start open.
    """
    if not variable:
        return ""
    token = os.environ.get(variable, "")
    if not token:
        raise ValueError(
            f"token_env = {variable!r}, but this process has no such environment variable: set it where Ray is started "
            "(on every node), or in the application's runtime_env"
        )
    return token
