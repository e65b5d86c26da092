"""Where Ray puts several learners: on one node, though by itself it would spread them. Two nodes on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from calibadv.rllib.config import learners_together
from tests.rllib.conftest import settings

LEARNERS = 3


def process_class() -> Any:
    """Sent as it is, being local: an actor would import this module and with it all of RLlib."""

    class Process:
        def node(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    return ray.remote(num_cpus=1)(Process)


@ray.remote(num_cpus=1)
def has_room(*overrides: str) -> bool:
    return learners_together(settings(*overrides)) is not None


@pytest.fixture
def two_nodes(no_ray: None) -> Iterator[None]:  # noqa: ARG001
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": LEARNERS, "include_dashboard": False})
    cluster.add_node(num_cpus=LEARNERS, resources={"learner": 1})
    ray.init(address=cluster.address)
    yield
    ray.shutdown()
    cluster.shutdown()


def nodes(processes: list[object]) -> set[str]:
    return set(ray.get([process.node.remote() for process in processes], timeout=120))  # type: ignore[attr-defined]


def end(processes: list[object]) -> None:
    """What they held is free again: room that is not there as a whole is given in parts."""
    for process in processes:
        ray.kill(process)  # type: ignore[arg-type]
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2 * LEARNERS:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)


@pytest.mark.integration
@pytest.mark.usefixtures("two_nodes")
def test_learners_go_to_one_node_and_to_that_which_is_asked_for() -> None:
    process = process_class()
    several = f"--learner.learners={LEARNERS}"
    alone = [process.remote() for _ in range(LEARNERS)]
    assert len(nodes(alone)) == 2  # or this would test nothing
    end(alone)
    (there,) = (node["NodeID"] for node in ray.nodes() if "learner" in node["Resources"])
    for overrides in ((), ("--cluster.address=auto", "--cluster.learners_on=learner")):
        room = learners_together(settings(several, *overrides))
        assert room is not None
        strategy = PlacementGroupSchedulingStrategy(placement_group=room)
        at = nodes(learners := [process.options(scheduling_strategy=strategy).remote() for _ in range(LEARNERS)])
        assert at == {there} if overrides else len(at) == 1
        assert placement_group_table(room)["strategy"] == "PACK"
        remove_placement_group(room)
        end(learners)
    trial = ray.util.placement_group([{"CPU": 1}])
    inside = PlacementGroupSchedulingStrategy(trial)
    assert ray.get(has_room.options(scheduling_strategy=inside).remote(several), timeout=120) is False  # it has its own


def test_one_learner_and_learners_beside_engines_have_no_room_of_their_own() -> None:
    shares = ("--cluster.gpus_per_engine=0.6", "--learner.gpus_per_learner=0.4", "--rollout.placement=colocated")
    for overrides in ((), ("--learner.learners=1",), (*shares, "--learner.learners=2", "--rollout.engines=2")):
        assert learners_together(settings(*overrides)) is None
