"""`ray job submit -- python workflows/train.py …` for real: a cluster with dashboard and token, a job, its run.

The cluster's processes see modules named like ours that refuse to be imported. So what trains is what was uploaded, in
driver, engines, learner and search app alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from calibadv.cluster.local_ray import free_ports

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).parent / "ray"
START_TIMEOUT_S, JOB_TIMEOUT_S = 300, 600  # half a minute and a minute and a half on two idle cores
SETTINGS = {
    "run.name": "job",
    "run.seed": "3",
    "run.steps": "2",
    "data.questions_per_step": "4",
    "data.test_questions": "4",
    "model.dtype": "float32",
    "rollout.engine": "torch",
    "rollout.torch_dtype": "float32",
    "rollout.engines": "1",
    "rollout.samples": "3",
    "learner.learners": "1",
    "learner.minibatch_rollouts": "6",
    "evaluation.every": "none",
    "search.retriever": "bm25",
    "search.reranker": "none",
    "cluster.address": "auto",
}


@dataclass(frozen=True)
class Cluster:
    """A running head node: its dashboard, the environment that reaches it, and a folder for runs."""

    dashboard: str
    environment: dict[str, str]
    folder: Path

    def ray(self, *arguments: str, timeout_s: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """A `ray` command, run to its end."""
        return subprocess.run(
            [RAY, *arguments],
            env=self.environment | environment,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = tmp_path_factory.mktemp("job")
    for name in ("calibadv", "serve", "workflows"):
        (base / "poison" / name).mkdir(parents=True)
        (base / "poison" / name / "__init__.py").write_text("raise ImportError('not the uploaded code')")
    # Not ours to hand on: a Ray, a checkout or a coverage run around the tests.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHON", "COV"))}
    environment |= {
        "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(base / "poison"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": "600",  # as in the deployment files
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    sockets = Path(tempfile.mkdtemp(prefix="rj", dir="/tmp"))  # pytest's own folders are too long for Ray's sockets
    gcs, dashboard, agent, grpc, runtime_env, client, metrics = free_ports(7)
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=6"]
    command += [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # A raylet does not wait for long for ports that its agents choose (calibadv/cluster/local_ray.py).
    command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    command += [f"--dashboard-agent-grpc-port={grpc}", f"--runtime-env-agent-port={runtime_env}"]
    command += [f"--ray-client-server-port={client}", f"--temp-dir={sockets}", "--object-store-memory=200000000"]
    with (base / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=base, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        wait_for_dashboard(head, url, environment["RAY_AUTH_TOKEN"], base / "head.log")
        yield Cluster(url, environment | {"RAY_API_SERVER_ADDRESS": url}, base)
    finally:
        stop(head)
        shutil.rmtree(sockets, ignore_errors=True)


def wait_for_dashboard(head: subprocess.Popen[bytes], url: str, token: str, log: Path) -> None:
    """Returns when the dashboard answers; fails with the head's log when it has ended or does not in time."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and head.poll() is None:
        try:
            if httpx.get(f"{url}/api/version", headers={"Authorization": f"Bearer {token}"}).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(1)
    pytest.fail(f"no dashboard at {url}: {log.read_text()}")


def stop(head: subprocess.Popen[bytes]) -> None:
    """Ends the head and what it started, by process id: `ray stop` would end other people's clusters too."""
    started = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
    head.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(started, timeout=3)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(timeout=30)
    head.kill()
    head.wait()


@pytest.fixture(scope="module")
def submitted(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    """The finished `ray job submit` of a run of two steps."""
    places = {"run.folder": str(cluster.folder / "runs"), "run.cache": str(cluster.folder / "cache")}
    settings = [part for key, value in (SETTINGS | places).items() for part in (f"--{key}", value)]
    train = ["python", "workflows/train.py", "--config", "workflows/recipes/pocket.toml", *settings]
    return cluster.ray(
        "job", "submit", "--submission-id=two-steps", "--working-dir=.", "--", *train, timeout_s=JOB_TIMEOUT_S
    )


def test_nobody_gets_in_without_the_token(cluster: Cluster) -> None:
    jobs = f"{cluster.dashboard}/api/jobs/"
    assert httpx.get(jobs).status_code == 401
    assert httpx.get(jobs, headers={"Authorization": "Bearer guessed"}).status_code == 403
    refused = cluster.ray("job", "submit", "--", "touch", str(cluster.folder / "got-in"), RAY_AUTH_TOKEN="guessed")
    assert refused.returncode != 0
    assert not (cluster.folder / "got-in").exists()


def test_job_succeeds(cluster: Cluster, submitted: subprocess.CompletedProcess[str]) -> None:
    assert submitted.returncode == 0, submitted.stdout
    assert "Job 'two-steps' succeeded" in submitted.stdout
    token = cluster.environment["RAY_AUTH_TOKEN"]
    job = httpx.get(f"{cluster.dashboard}/api/jobs/two-steps", headers={"Authorization": f"Bearer {token}"}).json()
    assert job["status"] == "SUCCEEDED"
    assert job["runtime_env"]["working_dir"].startswith("gcs://")


def test_its_log_shows_the_run(submitted: subprocess.CompletedProcess[str]) -> None:
    assert [f"step {number}/2 " in submitted.stdout for number in (1, 2)] == [True, True]


def test_the_run_is_where_it_was_told_to_be(cluster: Cluster, submitted: subprocess.CompletedProcess[str]) -> None:
    assert submitted.returncode == 0, submitted.stdout
    run = cluster.folder / "runs" / "job"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["steps"], summary["seed"], summary["engine"]) == (2, 3, "torch")
    assert (run / "model" / "model.safetensors").is_file()
    assert len((run / "metrics.jsonl").read_text().splitlines()) >= 2


def test_nothing_of_the_token_is_in_the_run_folder_or_the_job_s_log(
    cluster: Cluster, submitted: subprocess.CompletedProcess[str]
) -> None:
    token = cluster.environment["RAY_AUTH_TOKEN"]
    assert token not in submitted.stdout
    files = [path for path in (cluster.folder / "runs").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if token.encode() in path.read_bytes()]


SLOW_TO_SAVE = """
import pathlib, signal, sys, time

def save(*_):
    time.sleep(5)
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "running").touch()
time.sleep(600)
"""


def test_a_stopped_job_has_time_to_save(cluster: Cluster) -> None:
    """Ray's own 3 s are too short for a checkpoint; the deployment files set RAY_JOB_STOP_WAIT_TIME_S."""
    script = cluster.folder / "slow_to_save.py"
    script.write_text(SLOW_TO_SAVE)
    started = cluster.ray(
        "job", "submit", "--submission-id=slow", "--no-wait", "--", "python", str(script), str(cluster.folder)
    )
    assert started.returncode == 0, started.stdout
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (cluster.folder / "running").exists():
        assert time.monotonic() < deadline, cluster.ray("job", "logs", "slow").stdout
        time.sleep(0.5)
    stopped = cluster.ray("job", "stop", "slow")
    assert stopped.returncode == 0, stopped.stdout
    assert (cluster.folder / "saved").exists()
