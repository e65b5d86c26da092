"""The deployment files as their readers see them: after Ray's own defaults, without any cloud."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config

ROOT = Path(__file__).parents[2]
AWS, GCP, HOSTS = ROOT / "cluster.yaml", ROOT / "deploy" / "cluster-gcp.yaml", ROOT / "deploy" / "cluster-hosts.yaml"
KUBERAY = ROOT / "deploy" / "kuberay.yaml"

# What AWS answers when Ray asks for an instance type; here nobody is asked.
AWS_MACHINES = {
    "r6i.2xlarge": {"CPU": 8},
    "p4de.24xlarge": {"CPU": 96, "GPU": 8},
    "g6e.12xlarge": {"CPU": 48, "GPU": 4},
}


def written(path: Path) -> dict[str, Any]:
    """The file as it is written."""
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def prepared(path: Path) -> dict[str, Any]:
    """The file as `ray up` uses it: with Ray's defaults, and on AWS with what the instance types have."""
    config: dict[str, Any] = prepare_config(copy.deepcopy(written(path)))
    for node_type in config["available_node_types"].values():
        machine = node_type["node_config"].get("InstanceType")
        node_type["resources"] = AWS_MACHINES.get(machine, {}) | node_type["resources"]
    return config


def kubernetes(kind: str) -> dict[str, Any]:
    """The one document of a kind in the KubeRay manifest."""
    (document,) = [each for each in yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8")) if each["kind"] == kind]
    return document


def pyproject() -> dict[str, Any]:
    """pyproject.toml's project table."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def pinned(package: str) -> str:
    """The version that pyproject pins a dependency to, `==`."""
    (version,) = [
        line.partition("==")[2]
        for line in pyproject()["dependencies"]
        if line.partition("==")[0].partition("[")[0] == package
    ]
    return version


def locked(package: str) -> str:
    """The version that the CPU lock holds."""
    lines = (ROOT / "requirements-cpu.lock").read_text(encoding="utf-8").splitlines()
    (version,) = [line.split()[0].partition("==")[2] for line in lines if line.startswith(f"{package}==")]
    return version
