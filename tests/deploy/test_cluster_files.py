"""The three files of `ray up`, through Ray's own readers, and where its autoscaler would put a run."""

from __future__ import annotations

import copy
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError
from ray.autoscaler._private.util import validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.scripts.scripts import start

from calibadv.config import load_config
from tests.deploy.files import AWS, GCP, GPU_GB, HOSTS, ROOT, does_not_fit, locked, pinned, prepared, written

FILES = pytest.mark.parametrize("path", [AWS, GCP, HOSTS], ids=lambda path: path.name)
CLOUDS = pytest.mark.parametrize("path", [AWS, GCP], ids=lambda path: path.name)

ENGINE = {"CPU": 1.0, "GPU": 1.0, "engine": 0.001}
LEARNER = {"CPU": 1.0, "GPU": 1.0, "learner": 0.001}
RETRIEVER = {"CPU": 0.5, "GPU": 1.0, "learner": 0.001}


def nodes_for(path: Path, wanted: list[dict[str, float]]) -> tuple[Counter[str], int]:
    """How many nodes of each type Ray's autoscaler would start for these actors, and how many actors fit nowhere."""
    config = AutoscalingConfig(prepared(path), skip_content_hash=True)
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(each) for each in wanted]),
        )
    )
    return Counter({each.instance_type: each.count for each in reply.to_launch}), len(
        reply.infeasible_resource_requests
    )


@FILES
def test_ray_accepts_the_file(path: Path) -> None:
    validate_config(prepared(path))


@FILES
def test_ray_would_refuse_a_misspelt_key(path: Path) -> None:
    config = prepared(path) | {"max_wrokers": 1}
    with pytest.raises(ValidationError, match="max_wrokers"):
        validate_config(config)


@CLOUDS
@pytest.mark.parametrize("recipe", ["qwen2.5-7b", "qwen2.5-3b", "llama-3.2-3b-instruct"])
@pytest.mark.parametrize(("engines", "spot"), [(2, 1), (5, 2)])
def test_a_recipe_gets_spot_nodes_for_engines_and_one_on_demand_for_the_rest(
    path: Path, recipe: str, engines: int, spot: int
) -> None:
    config = load_config(ROOT / "workflows" / "recipes" / f"{recipe}.toml")
    assert config.rollout.engines == 2
    learners, retrievers = config.learner.learners, config.search.replicas
    assert config.search.num_gpus == RETRIEVER["GPU"]
    nodes, left_over = nodes_for(path, [ENGINE] * engines + [LEARNER] * learners + [RETRIEVER] * retrievers)
    assert left_over == 0
    del nodes["head"]
    assert nodes == {"engines": spot, "learners": 1}  # engines of one GPU on nodes of four


@CLOUDS
@pytest.mark.parametrize("recipe", ["qwen2.5-7b", "qwen2.5-3b", "llama-3.2-3b-instruct"])
def test_every_part_of_a_recipe_fits_the_gpu_of_its_node(
    path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    nodes = written(path)["available_node_types"]
    machines = {name: node["node_config"] for name, node in nodes.items()}
    cards = {
        name: GPU_GB[node.get("InstanceType") or node["machineType"]]
        for name, node in machines.items()
        if name != "head"
    }
    assert does_not_fit(recipe, cards) == []


def test_an_engine_of_7b_on_a_card_of_24_gb_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert does_not_fit("qwen2.5-7b", {"engines": 24, "learners": 80}) == ["engine"]


@CLOUDS
def test_no_learner_is_ever_put_on_a_spot_node(path: Path) -> None:
    nodes, left_over = nodes_for(path, [LEARNER] * 12)
    assert nodes["engines"] == 0
    assert (nodes["learners"], left_over) == (1, 4)  # eight fit; four wait rather than go where they may be lost


def test_engines_are_spot_and_nothing_else_is() -> None:
    aws = {name: node["node_config"] for name, node in written(AWS)["available_node_types"].items()}
    spot = {name for name, node in aws.items() if node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"}
    assert spot == {"engines"}
    gcp = {name: node["node_config"] for name, node in written(GCP)["available_node_types"].items()}
    assert {name for name, node in gcp.items() if node.get("scheduling", {}).get("provisioningModel")} == {"engines"}


@CLOUDS
def test_the_head_has_no_gpu_and_runs_neither_engines_nor_learners(path: Path) -> None:
    head = prepared(path)["available_node_types"]["head"]
    assert head["resources"] == {"CPU": 8}
    assert head["max_workers"] == 0


@CLOUDS
def test_all_node_types_together_are_within_the_limit_of_workers(path: Path) -> None:
    config = written(path)
    assert config["max_workers"] == sum(node.get("max_workers", 0) for node in config["available_node_types"].values())


@FILES
def test_every_start_of_ray_asks_for_the_token(path: Path) -> None:
    config = written(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [line for line in commands(config) if "ray start" in line]
    assert len(starts) == 2  # the head's and the workers'
    in_container = "-e RAY_AUTH_MODE=token" in config.get("docker", {}).get("run_options", [])
    in_every_shell = any(
        " RAY_AUTH_MODE=token " in line and line.endswith("~/.bashrc") for line in config["setup_commands"]
    )
    assert in_container != in_every_shell


@FILES
def test_a_stopped_job_is_given_time_to_save(path: Path) -> None:
    config = written(path)
    told = [*config.get("docker", {}).get("run_options", []), *config["setup_commands"]]
    assert sum("RAY_JOB_STOP_WAIT_TIME_S=600" in line for line in told) == 1


@FILES
def test_every_node_has_the_hubs_cache_in_the_shared_folder(path: Path) -> None:
    config = written(path)
    told = [*config.get("docker", {}).get("run_options", []), *config["setup_commands"]]
    assert sum("HF_HOME=/mnt/calibadv/cache/hf" in line for line in told) == 1


@FILES
def test_nothing_listens_for_the_world(path: Path) -> None:
    config = prepared(path)
    (head,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert not any("0.0.0.0" in line for line in commands(config))


@FILES
def test_what_is_mounted_is_there_and_is_enough_to_install_from(path: Path) -> None:
    own = {there: here for there, here in written(path)["file_mounts"].items() if not here.startswith("~")}
    assert all((ROOT / here).exists() for here in own.values())
    assert set(own) == {
        f"~/calibadv/{name}" for name in ("pyproject.toml", "README.md", "LICENSE", "calibadv", "serve", "workflows")
    }


@FILES
def test_every_node_installs_the_versions_of_the_lock(path: Path) -> None:
    config = written(path)
    assert any(f'"mlflow=={locked("mlflow")}"' in line and "calibadv[gpu]" in line for line in config["setup_commands"])
    if "docker" in config:
        assert config["docker"]["image"] == f"rayproject/ray:{pinned('ray')}-py311-gpu"


def test_all_given_hosts_join() -> None:
    (hosts,) = prepared(HOSTS)["available_node_types"].values()
    assert hosts["min_workers"] == hosts["max_workers"] == len(written(HOSTS)["provider"]["worker_ips"])


def test_the_clouds_differ_only_in_what_is_the_clouds_own() -> None:
    theirs = {"provider", "available_node_types", "initialization_commands", "head_setup_commands"}
    aws, gcp = copy.deepcopy(written(AWS)), copy.deepcopy(written(GCP))
    assert {key for key in aws | gcp if aws.get(key) != gcp.get(key)} == theirs


def commands(config: dict[str, Any]) -> list[str]:
    """Every shell line that a node runs."""
    return [line for key, lines in config.items() if key.endswith("_commands") for line in lines]


@FILES
def test_every_option_of_ray_start_is_one_that_it_knows(path: Path) -> None:
    for line in commands(written(path)):
        if "ray start " in line:
            start.make_context("ray start", shlex.split(line.partition("ray start ")[2]))  # raises NoSuchOption
