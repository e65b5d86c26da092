"""A Ray of this machine alone, all of whose processes listen on loopback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

TOKEN = Path.home() / ".ray" / "auth_token"


def init_local_ray(**options: Any) -> None:
    """`ray.init` of a new cluster on this machine, without a dashboard; `options` are `ray.init`'s.

    Ray gives a Linux node the machine's own address and then listens on every interface (2.60, measured); an explicit
    127.0.0.1 it replaces by that address. Where clusters are switched off, as on macOS, the node is 127.0.0.1.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(address="local", include_dashboard=False, **options)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        hide(TOKEN)


def hide(path: Path) -> None:
    """Takes the rights on our own file from everybody else: whoever reads Ray's token may run code as this user."""
    if path.is_file() and path.stat().st_uid == os.geteuid():
        path.chmod(0o600)
