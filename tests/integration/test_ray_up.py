"""`ray up deploy/cluster-hosts.yaml` for real: two hosts on this machine, a run of two steps across both, `ray down`.

Skipped where namespaces, an ssh server or root are missing. Not rehearsed is the installation on each host: its `.venv`
is the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from calibadv.cluster.local_ray import free_ports
from deploy.rehearsal.hosts import Host, rehearsal_hosts, why_not
from tests.integration.test_ray_job import RAY, ROOT, SETTINGS

REASON = why_not()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(REASON is not None, reason=f"no hosts to rehearse on: {REASON}"),
]
# Generous: three raylets' worth of processes on two cores.
UP_TIMEOUT_S, JOIN_TIMEOUT_S, JOB_TIMEOUT_S = 400, 400, 800
# Each host has as many CPUs as the machine. An engine for each of them, a learner (1) and a retriever (0.5) are too
# many for one host and not for two.
ENGINES = os.cpu_count() or 1


@dataclass(frozen=True)
class Laptop:
    """Where `ray up` is called: the cluster file, the environment, and the hosts."""

    file: Path
    environment: dict[str, str]
    hosts: list[Host]
    shared: Path
    dashboard: str

    def ray(self, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RAY, *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )

    def ask(self, path: str, token: str | None = None) -> httpx.Response:
        """The dashboard's answer, through the tunnel."""
        token = self.environment["RAY_AUTH_TOKEN"] if token is None else token
        return httpx.get(f"{self.dashboard}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=30)


def cluster_file(hosts: list[Host], key: Path) -> dict[str, Any]:
    """deploy/cluster-hosts.yaml with these addresses and this key, on hosts where everything is installed."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "cluster-hosts.yaml").read_text())
    head, *workers = hosts
    return config | {
        "cluster_name": f"rehearsal-{os.getpid()}",
        "provider": {"type": "local", "head_ip": head.address, "worker_ips": [host.address for host in workers]},
        "auth": {"ssh_user": "root", "ssh_private_key": str(key)},
        "setup_commands": [line for line in config["setup_commands"] if "pip install" not in line],
    }


@pytest.fixture(scope="module")
def laptop() -> Iterator[Laptop]:
    with tempfile.TemporaryDirectory(prefix="ru", dir="/var/tmp") as name:
        folder = Path(name)
        home = folder / "laptop"
        (home / ".ray").mkdir(parents=True)
        token = secrets.token_hex(16)
        (home / ".ray" / "auth_token").write_text(token)
        (home / ".ray" / "auth_token").chmod(0o600)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHON", "COV"))}
        environment |= {
            "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "TMPDIR": str(home),
            "RAY_TMPDIR": str(home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        bashrc = (
            "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 "
            "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES=300000000\n"
        )
        with rehearsal_hosts(folder, 2, bashrc) as (hosts, key):
            for host in hosts:
                (host.home / "calibadv").mkdir()
                (host.home / "calibadv" / ".venv").symlink_to(sys.prefix)
            file = home / "cluster.yaml"
            file.write_text(yaml.safe_dump(cluster_file(hosts, key)))
            (folder / "shared").mkdir()
            (port,) = free_ports(1)
            yield Laptop(file, environment, hosts, folder / "shared", f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def cluster(laptop: Laptop) -> Iterator[Laptop]:
    """The cluster after `ray up`, its dashboard reached as docs/cluster.md says: by `ray dashboard`, an ssh tunnel."""
    up = laptop.ray("up", "-y", "--no-config-cache", str(laptop.file), timeout_s=UP_TIMEOUT_S)
    assert up.returncode == 0, up.stdout
    port = laptop.dashboard.rpartition(":")[2]
    tunnel = subprocess.Popen(
        [RAY, "dashboard", "--no-config-cache", "-p", port, str(laptop.file)],
        cwd=ROOT,
        env=laptop.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(alive(laptop)) == 2, JOIN_TIMEOUT_S, lambda: logs_of_monitor(laptop))
        yield laptop
    finally:
        os.killpg(tunnel.pid, signal.SIGKILL)
        tunnel.wait()


def alive(laptop: Laptop) -> dict[str, str]:
    """Address of each node that is alive, by its id; none while the dashboard does not answer."""
    try:
        answer = laptop.ask("/api/v0/nodes")
    except httpx.TransportError:
        return {}
    nodes = answer.json()["data"]["result"]["result"] if answer.status_code == 200 else []
    return {node["node_id"]: node["node_ip"] for node in nodes if node["state"] == "ALIVE"}


def wait_until(done: Callable[[], bool], timeout_s: float, why: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(why())
        time.sleep(3)


def logs_of_monitor(laptop: Laptop) -> str:
    """What the head's autoscaler said: it is the one that starts the workers."""
    show = "tail -n 60 /tmp/ray/session_latest/logs/monitor*"
    return laptop.ray("exec", "--no-config-cache", str(laptop.file), show, timeout_s=120).stdout


@pytest.fixture(scope="module")
def trained(cluster: Laptop) -> subprocess.CompletedProcess[str]:
    """The finished job: two steps of a run that one host cannot hold."""
    places = {
        "run.folder": str(cluster.shared / "runs"),
        "run.cache": str(cluster.shared / "cache"),
        "rollout.engines": str(ENGINES),
    }
    settings = [part for key, value in (SETTINGS | places).items() for part in (f"--{key}", value)]
    submit = ["job", "submit", "--address", cluster.dashboard, "--submission-id=up", "--working-dir=.", "--"]
    train = ["python", "workflows/train.py", "--config", "workflows/recipes/pocket.toml", *settings]
    return cluster.ray(*submit, *train, timeout_s=JOB_TIMEOUT_S)


def test_ray_up_starts_both_hosts(cluster: Laptop) -> None:
    assert sorted(alive(cluster).values()) == sorted(host.address for host in cluster.hosts)


def test_dashboard_is_reached_by_the_tunnel_alone_and_with_the_token_alone(cluster: Laptop) -> None:
    assert cluster.ask("/api/jobs/").status_code == 200
    assert cluster.ask("/api/jobs/", token="guessed").status_code == 403
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{cluster.hosts[0].address}:8265/api/version")


def test_two_steps_are_trained_across_both_hosts(cluster: Laptop, trained: subprocess.CompletedProcess[str]) -> None:
    assert trained.returncode == 0, trained.stdout
    assert json.loads((cluster.shared / "runs" / "job" / "summary.json").read_text())["steps"] == 2
    assert "step 2/2 " in trained.stdout
    actors = cluster.ask("/api/v0/actors?limit=1000&detail=true").json()["data"]["result"]["result"]
    placed = [(actor["class_name"], actor["node_id"]) for actor in actors if actor["required_resources"].get("CPU")]
    assert {node for _, node in placed} == set(alive(cluster)), placed
    assert sum("RolloutWorker" in name for name, _ in placed) == ENGINES, placed


def test_ray_down_ends_every_process_on_every_host(cluster: Laptop, trained: subprocess.CompletedProcess[str]) -> None:
    del trained  # only its being over
    down = cluster.ray("down", "-y", str(cluster.file), timeout_s=300)
    assert down.returncode == 0, down.stdout
    wait_until(lambda: not any(processes_of_ray(cluster, host) for host in cluster.hosts), 120, lambda: down.stdout)


def processes_of_ray(laptop: Laptop, host: Host) -> list[str]:
    """The command lines of Ray's own processes on a host, asked there by ssh."""
    key = yaml.safe_load(laptop.file.read_text())["auth"]["ssh_private_key"]
    options = ["-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    command = ["ssh", *options, f"root@{host.address}", "ps -e -o args="]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()
    return [line for line in lines if "gcs_server" in line or "raylet" in line]
