"""A Ray of this machine alone, all of whose processes listen on loopback."""

from __future__ import annotations

import itertools
import logging
import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
from ray._private import parameter, ray_constants, services

from calibadv.cluster.ray_place import RayStartFailed, prepare, token_file

logger = logging.getLogger(__name__)

ATTEMPTS = 2
PORTS = range(20_000, 32_768)  # above those of Ray's workers, below those that Linux and macOS give out by themselves


def init_local_ray(**options: Any) -> None:
    """`ray.init` of a new cluster on this machine, without a dashboard; `options` are `ray.init`'s.

    ValueError where the machine does not let it (`ray_place.prepare`). A start that takes longer than Ray waits, as on
    a busy machine, is tried once more; then `RayStartFailed`.
    """
    prepare(os.environ)
    os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")  # a node's patience with its agents; Ray's is 30 s
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _start(options)
            break
        except (ConnectionError, TimeoutError) as error:  # OSErrors too, but of a machine that may be quicker next time
            _retry_or_raise(attempt, error)
        except (ValueError, TypeError, OSError):
            raise
        except Exception as error:  # Ray raises a bare one where a node's start takes longer than 30 s
            _retry_or_raise(attempt, error)
    path = None if os.environ.get("RAY_AUTH_TOKEN_PATH") else token_file(os.environ)
    if path is not None:
        hide(path)


def _start(options: dict[str, Any]) -> None:
    """What `ray.init` has no options for (Ray 2.60, all of it measured).

    A Linux node takes the machine's own address and then listens on every interface; an explicit 127.0.0.1 is replaced
    by that address. Where clusters are switched off, as on macOS, the node is 127.0.0.1.

    A node waits 15 s for each port that its two agents choose, and dies if it has not heard of it; on a busy machine
    Python alone takes longer to start. So all are told free ones, which also keeps two Rays from wanting the same. Of
    the last one Ray tells the agent alone.

    One machine has no use for an autoscaler, for a dashboard that reports usage alone, nor for what reads the workers'
    logs to a driver that does not want them: up to three processes less.
    """
    metrics, grpc, http, runtime_env = free_ports(4)
    agents = {"metrics_agent_port": grpc, "dashboard_agent_listen_port": http, "runtime_env_agent_port": runtime_env}
    processes = {"no_monitor": True, "include_log_monitor": options.get("log_to_driver") is not False}
    start_process = services.start_ray_process

    def start(command: list[str], kind: str, **options: Any) -> Any:
        told = [f"--dashboard_agent_listen_port={http}"] if kind == ray_constants.PROCESS_TYPE_RAYLET else []
        return start_process([*command, *told], kind, **options)

    with (
        _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False),
        _replaced(parameter, "RayParams", partial(parameter.RayParams, **agents, **processes)),
        _replaced(services, "start_ray_process", start),
        _replaced(services, "start_api_server", lambda *_, **__: (None, None)),
    ):
        ray.init(address="local", include_dashboard=False, _metrics_export_port=metrics, **options)


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, all different.

    None that the system gives to whoever asks for any, which every connection does: what is free now would be taken
    when an agent comes to bind it, seconds later, and a node whose agent cannot is lost.
    """
    ports = random.SystemRandom().sample(PORTS, len(PORTS))
    with ExitStack() as stack:
        probes = filter(None, (_bound(port, stack) for port in ports))
        return [probe.getsockname()[1] for probe in itertools.islice(probes, count)]


def _bound(port: int, stack: ExitStack) -> socket.socket | None:
    probe = stack.enter_context(socket.socket())
    try:
        probe.bind(("", port))
    except OSError:
        return None
    return probe


def _retry_or_raise(attempt: int, error: Exception) -> None:
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
