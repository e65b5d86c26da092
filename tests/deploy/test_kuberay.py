"""The KubeRay manifest, through the code with which Ray's autoscaler reads a RayCluster."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from calibadv.config import Config
from tests.deploy.files import GPU_GB, ROOT, does_not_fit, kubernetes, pinned
from workflows.train import parse


@pytest.fixture(scope="module")
def groups() -> dict[str, Any]:
    """Node types as Ray's autoscaler derives them; it also validates what it has derived."""
    cluster = kubernetes("RayCluster")
    cluster["metadata"]["namespace"] = "default"  # the API server fills it in
    types: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    return types


def run_config() -> Config:
    """The configuration of the RayJob's command."""
    _, script, *arguments = shlex.split(kubernetes("RayJob")["spec"]["entrypoint"])
    folder = script.removesuffix("/workflows/train.py")
    asked = parse([argument.replace(folder, str(ROOT)) for argument in arguments])
    assert not asked.dry_run
    return asked.config


def test_ray_reads_the_groups_with_their_gpus_and_roles(groups: dict[str, Any]) -> None:
    resources = {name: group["resources"] for name, group in groups.items()}
    assert resources["headgroup"].get("GPU", 0) == 0
    assert (resources["learners"]["GPU"], resources["learners"]["learner"]) == (8, 1)
    assert (resources["engines"]["GPU"], resources["engines"]["engine"]) == (4, 1)
    assert "engine" not in resources["learners"]
    assert "learner" not in resources["engines"]


def test_gpu_nodes_are_started_on_demand_only(groups: dict[str, Any]) -> None:
    assert {name: (group["min_workers"], group["max_workers"]) for name, group in groups.items()} == {
        "headgroup": (0, 0),
        "learners": (0, 1),
        "engines": (0, 4),
    }


def test_only_engines_may_be_put_on_spot_nodes() -> None:
    for group in kubernetes("RayCluster")["spec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        spot = "cloud.google.com/gke-spot" in pod["nodeSelector"]
        assert spot == bool(pod.get("tolerations")) == (group["groupName"] == "engines")


def test_version_and_token_are_those_of_the_other_files() -> None:
    spec = kubernetes("RayCluster")["spec"]
    assert spec["rayVersion"] == pinned("ray")
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_every_pod_sees_the_shared_folder_and_asks_for_what_it_is_limited_to() -> None:
    spec, claim = kubernetes("RayCluster")["spec"], kubernetes("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {"name": "shared", "mountPath": "/mnt/calibadv"} in container["volumeMounts"]
        assert container["env"] == [{"name": "HF_HOME", "value": "/mnt/calibadv/cache/hf"}]
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod["volumes"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert pod["securityContext"]["runAsNonRoot"]


def test_the_job_runs_on_that_cluster_and_is_submitted_once() -> None:
    job, cluster = kubernetes("RayJob"), kubernetes("RayCluster")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert job["spec"]["submitterConfig"] == {"backoffLimit": 0}
    assert "shutdownAfterJobFinishes" not in job["spec"]  # KubeRay refuses it beside a selector


def test_the_command_is_one_that_train_accepts_with_every_file_in_the_shared_folder() -> None:
    config = run_config()
    assert config.cluster.address == "auto"
    places = [config.run.folder, config.run.cache, config.data.train, config.data.test, config.data.corpus]
    places.append(config.search.faiss_index)
    assert all(str(place).startswith("/mnt/calibadv/") for place in places)


def test_the_roles_in_the_command_are_resources_of_the_groups(groups: dict[str, Any]) -> None:
    cluster = run_config().cluster
    assert cluster.engines_on in groups["engines"]["resources"]
    assert cluster.learners_on in groups["learners"]["resources"]
    assert cluster.search_on in groups["learners"]["resources"]


def test_the_run_fits_the_gpus_of_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cards = {
        group["groupName"]: GPU_GB[group["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-accelerator"]]
        for group in kubernetes("RayCluster")["spec"]["workerGroupSpecs"]
    }
    assert does_not_fit("qwen2.5-7b", cards) == []


def test_the_run_fits_the_groups(groups: dict[str, Any]) -> None:
    config = run_config()
    engines, learners = groups["engines"], groups["learners"]
    assert (
        config.rollout.engines * config.cluster.gpus_per_engine <= engines["max_workers"] * engines["resources"]["GPU"]
    )
    taken = config.learner.learners * config.learner.gpus_per_learner + config.search.replicas * config.search.num_gpus
    assert taken <= learners["max_workers"] * learners["resources"]["GPU"]
