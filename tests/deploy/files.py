"""The deployment files as their readers see them: after Ray's own defaults, without any cloud."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config

from calibadv.config import load_config
from calibadv.memory.parts import parts_of
from calibadv.memory.shape import model_shape

ROOT = Path(__file__).parents[2]
AWS, GCP, HOSTS = ROOT / "cluster.yaml", ROOT / "deploy" / "cluster-gcp.yaml", ROOT / "deploy" / "cluster-hosts.yaml"
KUBERAY = ROOT / "deploy" / "kuberay.yaml"

# What AWS answers when Ray asks for an instance type; here nobody is asked.
AWS_MACHINES = {
    "r6i.2xlarge": {"CPU": 8},
    "p4de.24xlarge": {"CPU": 96, "GPU": 8},
    "g6e.12xlarge": {"CPU": 48, "GPU": 4},
}

# Memory of one GPU, as the clouds' pages of machine types have it.
GPU_GB = {
    "p4de.24xlarge": 80,  # A100
    "g6e.12xlarge": 48,  # L40S
    "a2-ultragpu-8g": 80,  # A100
    "a2-highgpu-4g": 40,  # A100
    "nvidia-a100-80gb": 80,  # GKE's labels
    "nvidia-tesla-a100": 40,
}


def does_not_fit(recipe: str, cards_gb: dict[str, float]) -> list[str]:
    """The parts of a recipe that the GPUs of their nodes (engines, learners: retrievers too) do not hold."""
    config = load_config(ROOT / "workflows" / "recipes" / f"{recipe}.toml")
    parts = parts_of(config, model_shape(config.model.path))
    assert {part.name for part in parts} == {"engine", "learner", "search"}
    return [
        part.name
        for part in parts
        if part.spare_bytes(cards_gb["engines" if part.name == "engine" else "learners"]) < 0
    ]


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
