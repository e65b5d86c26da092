"""A Ray of this machine alone, all of whose processes listen on loopback."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from calibadv.cluster.ray_place import RayStartFailed, prepare, token_file

logger = logging.getLogger(__name__)

ATTEMPTS = 2


def init_local_ray(**options: Any) -> None:
    """`ray.init` of a new cluster on this machine, without a dashboard; `options` are `ray.init`'s.

    ValueError where the machine does not let it (`ray_place.prepare`). A start that takes longer than Ray waits, as on
    a busy machine, is tried once more; then `RayStartFailed`.
    """
    prepare(os.environ)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _start(options)
            break
        except (ConnectionError, TimeoutError) as error:  # OSErrors too, but of a machine that may be quicker next time
            _go_on(attempt, error)
        except (ValueError, TypeError, OSError):
            raise
        except Exception as error:  # Ray raises a bare one where a node's start takes longer than 30 s
            _go_on(attempt, error)
    path = None if os.environ.get("RAY_AUTH_TOKEN_PATH") else token_file(os.environ)
    if path is not None:
        hide(path)


def _start(options: dict[str, Any]) -> None:
    """Ray gives a Linux node the machine's own address and then listens on every interface (2.60, measured); an
    explicit 127.0.0.1 it replaces by that address. Where clusters are switched off, as on macOS, the node is 127.0.0.1.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(address="local", include_dashboard=False, **options)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _go_on(attempt: int, error: Exception) -> None:
    """Takes away what a failed start left behind. Raises `RayStartFailed` after the last one."""
    ray.shutdown()
    said = " ".join(str(error).split())[:300] or type(error).__name__
    if attempt == ATTEMPTS:
        raise RayStartFailed(
            f"Ray did not start in {ATTEMPTS} attempts ({said}): the machine is too busy, or short of memory or "
            "processes (ulimit -u); try again when it is quieter"
        ) from error
    logger.warning("Ray did not start (%s): it is tried once more", said)


def hide(path: Path) -> None:
    """Takes the rights on our own file from everybody else: whoever reads Ray's token may run code as this user."""
    if path.is_file() and path.stat().st_uid == os.geteuid():
        path.chmod(0o600)
